// A clock that moves only when the test says so: dates, performance.now and timers of the page. Frames, storage, the network
// and the page's life stay the browser's own.
(() => {
  let now = START_HERE;
  const begin = now;
  const timers = new Map();
  let last = 0;
  const set = (run, delay, every) => (timers.set(++last, { run, at: now + Math.max(0, delay || 0), every }), last);
  Date.now = () => now;
  performance.now = () => now - begin;
  window.setTimeout = (run, delay, ...given) => set(() => run(...given), delay);
  window.setInterval = (run, delay, ...given) => set(() => run(...given), delay, delay);
  window.clearTimeout = window.clearInterval = (id) => timers.delete(id);
  window.advance = (ms) => {
    const end = now + ms;
    for (;;) {
      const [first] = [...timers].filter(([, timer]) => timer.at <= end).sort(([m, a], [n, b]) => a.at - b.at || m - n);
      if (!first) break;
      const [id, timer] = first;
      now = Math.max(now, timer.at);
      if (timer.every) timer.at += timer.every;
      else timers.delete(id);
      timer.run();
    }
    now = end;
    return now;
  };
  // Let a reader act: [[ms to wait, type of event], ...]
  window.act = (acts) => {
    for (const [wait, type] of acts) {
      advance(wait);
      dispatchEvent(new Event(type));
    }
    return now;
  };
})();
