// Attention: dwell, visible and engaged time, and the depth of scrolling, as one report of a page view.
//
// Engaged is the time in which the page is visible and focused, up to ENGAGED_MS after the last sign of the reader: the
// start of the view, focus, scrolling, a key, the pointer.
// The report is a draft in the queue from the end of the first second on, so that it survives whatever ends the page. Where
// there is fetchLater the browser holds a copy besides, and sends it when the page is gone. (Not sooner: what is given to
// fetchLater while a page comes back from the back/forward cache is sent at once.)

let began; // performance.now() of the start of the view
let until; // ... up to which time is counted
let engagedUntil; // ... at which engagement ends without a new sign
let visible; // whether the page has been visible since `until`
let visibleTime;
let engagedTime;
let depth; // per cent of the page
let draft; // the key of the open report, if there is one
let number; // its number
let held; // the copy that the browser holds: the result of fetchLater, and the AbortController that takes it back
let reported; // whether REPORT_MS is over

const count = () => {
  const now = performance.now();
  engagedTime += Math.max(0, Math.min(now, engagedUntil) - until);
  if (visible) visibleTime += now - until;
  until = now;
};

const measureDepth = () => {
  depth = Math.max(depth, ((scrollY + innerHeight) / document.documentElement.scrollHeight) * 100);
};

// Write the draft anew.
const report = () => {
  count();
  measureDepth();
  // An id must never be sent with less than its last content. So if the browser has sent its copy already (it does when a page
  // comes back), or another tab the draft that stood for long, what follows is another report.
  if (held?.[0].activated || !store[draft]) number = nextNumber();
  draft = keep(
    "engagement",
    { dwell_ms: until - began, visible_ms: visibleTime, engaged_ms: engagedTime, scroll_pct: depth },
    number,
  );
  held = held?.[1].abort();
  try {
    const controller = new AbortController();
    const options = { signal: controller.signal, activateAfter: reported ? undefined : HELD_MS - until + began };
    held = [fetchLater(address, request(store[draft], options)), controller];
  } catch {} // no fetchLater, no permission, no quota, or late after a sleep: the report is sent when the page is hidden
};

// The draft is final: it may be sent.
const close = () => {
  draft = held = held?.[1].abort();
};

// A sign of the reader, or a change of what the reader sees.
const notice = (event) => {
  if (!view) return;
  const isVisible = event.type != "pagehide" && !document.hidden;
  if (!isVisible && page != location.pathname) begin();
  count();
  const wasVisible = visible;
  visible = isVisible;
  engagedUntil = visible && document.hasFocus() ? until + ENGAGED_MS : 0;
  if (event.type == "scroll") measureDepth();
  if (visible) watchAds();
  else if (wasVisible) {
    forgetAds();
    report();
    if (!held) close();
    flush();
  }
};
