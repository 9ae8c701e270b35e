// The queue: an event is in localStorage until the collector has answered for it, so a later page sends what a closed page,
// a lost network or a 503 left over. Ids never change, and the collector's dedup drops what arrives twice.

const underWay = {}; // keys of the events that this page is sending or has sent

const request = (body, options) => ({ method: "POST", body, credentials: "include", ...options });

// Send what waits: this tab's events but the open draft, and what other tabs have left behind.
const flush = () => {
  const now = Date.now();
  if (now < session[AFTER]) return;
  const keys = Object.keys(store)
    .filter((key) => key.startsWith(EVENT))
    .sort()
    .reverse()
    .filter((key, place) => {
      const { occurred_at, tab } = JSON.parse(store[key]);
      return place < MOST_KEPT && occurred_at > now - KEPT_MS
        ? !underWay[key] && (tab == session[TAB] ? key != draft : occurred_at < now - FRESH_MS)
        : !delete store[key];
    })
    .slice(-MOST_SENT);
  if (!keys[0]) return;
  const body = "[" + keys.map((key) => ((underWay[key] = 1), store[key])) + "]";
  fetch(address, request(body, { keepalive: body.length < KEEPALIVE_BYTES }))
    .catch((error) => error)
    .then(({ ok, headers }) => {
      if (!ok && view) session[AFTER] = Date.now() + (+headers?.get("Retry-After") || PAUSE_S) * 1000;
      keys.map((key) => (underWay[key] = ok && delete store[key]));
    });
};
