// A browser with pages, as far as the tracker sees one: storage shared by pages, and in each page a clock, timers, events,
// an IntersectionObserver and a network that the test decides about. It takes nothing of the tracker's code.

class Clock {
  constructor() {
    this.now = 0;
    this.timers = new Map();
    this.last = 0;
  }
  set(page, run, delay, every) {
    this.last += 1;
    this.timers.set(this.last, { page, run, at: this.now + Math.max(0, delay || 0), every, id: this.last });
    return this.last;
  }
  next(until) {
    let first = null;
    for (const timer of this.timers.values())
      if (timer.at <= until && (!first || timer.at < first.at || (timer.at === first.at && timer.id < first.id))) first = timer;
    return first;
  }
  // Run the timers that are due by `until`, in order, up to one that settles a promise: what waits for it runs before the next.
  // False once there is none.
  run(until) {
    for (let timer; (timer = this.next(until)); ) {
      this.now = Math.max(this.now, timer.at);
      if (timer.every) timer.at += timer.every;
      else this.timers.delete(timer.id);
      if (timer.run()?.isSettled) return true;
    }
    this.now = Math.max(this.now, until);
    return false;
  }
  forget(page) {
    for (const timer of [...this.timers.values()]) if (timer.page === page) this.timers.delete(timer.id);
  }
}

const EPOCH = 1800000000000;

class Browser {
  constructor() {
    this.clock = new Clock();
    this.localStorage = {};
    this.requests = []; // {page, at, body, url, keepalive, later}
    this.network = { kind: "ok", status: 200, retryAfter: null, delay: 50 };
    this.hasFetchLater = true;
    this.random = 0;
    this.pages = [];
  }
  // A request reaches the network: it is noted if the server gets it, and answered as the network's state says.
  carry(page, url, options, later) {
    const { kind, status, retryAfter, delay } = this.network;
    const at = this.clock.now;
    const reaches = kind === "ok" || kind === "answer lost";
    this.requests.push({ page: page.number, at, url, body: options.body, later, reaches, status: reaches ? status : 0 });
    return new Promise((resolve, reject) =>
      this.clock.set(page, () => {
        if (kind !== "ok") reject(new TypeError("Failed to fetch"));
        else resolve({ ok: status === 200, status, headers: { get: (name) => (name === "Retry-After" ? retryAfter : null) } });
        return { isSettled: true };
      }, delay),
    );
  }
  open(source, options) {
    const page = new Page(this, options);
    page.number = this.pages.push(page) - 1;
    page.run(source);
    return page.number;
  }
}

class Element {
  constructor(dataset, box) {
    Object.assign(this, { dataset, ...box, ratio: 0 });
  }
  closest(selector) {
    return selector === "[data-ad_slot]" && "ad_slot" in this.dataset ? this : null;
  }
  matches() {
    return Boolean(this.hovered);
  }
}

const crossed = (thresholds, ratio) => thresholds.filter((each) => ratio >= each).length;

class Page {
  constructor(browser, { dataset = {}, hidden = false, focused = true, prerendering = false, path = "/a", referrer = "", session = {},
                         gpc, dnt, cookie = "", scrollHeight = 2000, ads = [], queued } = {}) {
    const page = this;
    const { clock } = browser;
    Object.assign(this, { browser, focused, listeners: {}, observers: [], held: new Set(), isGone: false, session });
    this.ads = ads.map(({ data, width, height, ratio = 0 }) => Object.assign(new Element(data, { width, height }), { ratio }));
    const place = { pathname: path, href: "https://news.example" + path };
    this.window = {
      document: {
        currentScript: { dataset: { key: "demo", ...dataset }, src: "https://events.example/t.js" },
        hidden, prerendering, referrer, cookie, title: "Title", hasFocus: () => page.focused,
        documentElement: { scrollHeight }, activeElement: new Element({}, {}),
        querySelectorAll: () => page.ads,
      },
      location: place, scrollY: 0, innerHeight: 500, innerWidth: 800, screen: { width: 1600 },
      navigator: { webdriver: false, language: "en", globalPrivacyControl: gpc, doNotTrack: dnt },
      get localStorage() { return browser.localStorage; }, sessionStorage: session,
      performance: { now: () => clock.now },
      Date: { now: () => EPOCH + clock.now },
      Intl: { DateTimeFormat: () => ({ resolvedOptions: () => ({ timeZone: "Europe/Zurich" }) }) },
      crypto: { getRandomValues: (array) => array.map(() => (browser.random += 1)) },
      URL: class { constructor(path, base) { this.text = base.replace(/^(https:..[^/]+).*/, "$1") + path; } toString() { return this.text; } },
      setTimeout: (run, delay) => clock.set(page, run, delay),
      setInterval: (run, delay) => clock.set(page, run, delay, delay),
      clearTimeout: (id) => clock.timers.delete(id),
      addEventListener: (type, run, captures) => {
        if (type === "prerenderingchange" && !captures) return; // it is the document's, and does not bubble
        (page.listeners[type] ||= []).push(run);
      },
      removeEventListener: (type, run) => {
        page.listeners[type] = (page.listeners[type] || []).filter((each) => each !== run);
      },
      fetch: (url, options) => browser.carry(page, url, options, false),
      AbortController: class { constructor() { this.signal = {}; } abort() { this.signal.run?.(); } },
      IntersectionObserver: class {
        constructor(call, { threshold }) {
          Object.assign(this, { call, threshold, seen: new Map() });
          page.observers.push(this);
        }
        observe(element) {
          if (this.seen.has(element)) return;
          this.seen.set(element, -1);
          clock.set(page, () => this.look(), 0); // the first entry comes with the next frame
        }
        disconnect() { this.seen.clear(); }
        look() {
          const entries = [];
          for (const [element, before] of this.seen) {
            const index = crossed(this.threshold, element.ratio);
            if (index === before) continue;
            this.seen.set(element, index);
            entries.push({ target: element, intersectionRatio: element.ratio, boundingClientRect: element });
          }
          if (entries.length) this.call(entries);
        }
      },
    };
    if (browser.hasFetchLater)
      this.window.fetchLater = (url, options) => {
        if (options.activateAfter < 0) throw new RangeError("activateAfter");
        const held = { url, options, activated: false };
        const timer = options.activateAfter === undefined ? 0 : clock.set(null, () => this.release(held), options.activateAfter);
        page.held.add(held);
        options.signal.run = () => { page.held.delete(held); clock.timers.delete(timer); };
        return held;
      };
    if (queued) this.window.instream = queued;
    this.window.window = this.window;
  }
  release(held) {
    held.activated = true;
    if (this.held.delete(held)) this.browser.carry(this, held.url, held.options, true);
  }
  run(source) {
    new Function("window", `with (window) { ${source} }`)(this.window);
  }
  fire(type, event = {}) {
    for (const run of this.listeners[type] || []) run({ type, target: this.window.document, ...event });
  }
  show(isVisible) {
    this.window.document.hidden = !isVisible;
    this.fire("visibilitychange");
  }
  focus(isFocused) {
    this.focused = isFocused;
    this.fire(isFocused ? "focus" : "blur");
  }
  scroll(y) {
    this.window.scrollY = y;
    this.fire("scroll");
  }
  view(number, ratio) {
    this.ads[number].ratio = ratio;
    for (const observer of this.observers) observer.look();
  }
  // The page is left: it hides, and is gone; the browser sends what it holds. In the bfcache it stands still instead.
  leave({ bfcache = false } = {}) {
    this.fire("pagehide", { persisted: bfcache });
    if (!this.window.document.hidden) this.show(false);
    this.stop();
  }
  // The browser sends what it holds, although the page lives on: Chromium does when a page comes back from the bfcache.
  releaseAll() {
    for (const held of [...this.held]) this.release(held);
  }
  // The page's process ends without a word; the browser itself lives.
  crash() {
    this.stop();
  }
  stop() {
    this.stopped = [...this.browser.clock.timers.values()].filter((timer) => timer.page === this);
    this.browser.clock.forget(this);
    this.releaseAll();
  }
  // Back from the bfcache.
  restore() {
    for (const timer of this.stopped)
      this.browser.clock.timers.set(timer.id, { ...timer, at: Math.max(timer.at, this.browser.clock.now) });
    this.window.document.hidden = false;
    this.fire("pageshow", { persisted: true });
    this.fire("visibilitychange");
  }
}

let browser = new Browser();
