// The start: permission, commands of the page, listeners, and the tick.

// Nothing may be sent or kept: remove everything of ours.
const stop = () => {
  removeEventListener("prerenderingchange", start, true);
  close();
  forgetAds();
  view = visible = 0;
  try {
    for (const area of [localStorage, sessionStorage])
      for (const key in area) if (key.startsWith(PREFIX)) delete area[key];
  } catch {} // the browser has no storage for us, so nothing is there
};

const start = () => {
  if (navigator.globalPrivacyControl || navigator.doNotTrack == 1) return stop();
  if (document.prerendering) return addEventListener("prerenderingchange", start, true);
  if (!view) {
    identify();
    begin(tagged);
  }
};

const commands = {
  consent: (given) => (given ? start() : stop()),
  view: (fields) => view && begin(fields),
  send,
};

for (const type of "blur focus scroll keydown pointerdown pointermove pagehide visibilitychange".split(" "))
  addEventListener(type, notice, true);
addEventListener("click", click, true);
// A click into a frame of another origin shows itself only by the focus, which goes where the pointer is.
addEventListener("blur", () => document.activeElement.matches("iframe:hover") && click({ target: document.activeElement }));
addEventListener("pageshow", ({ persisted }) => persisted && view && begin(shown));

setInterval(() => {
  if (!view) return;
  if (page != location.pathname) begin();
  count();
  if (!reported && until - began >= REPORT_MS) {
    report();
    reported = 1;
    close();
  } else if (visible) report();
  if (visible) watchAds();
  flush();
}, TICK_MS);

const push = ([name, ...given]) => commands[name](...given);
if (consent == null) start();
(window.instream || []).map(push);
window.instream = { push };
