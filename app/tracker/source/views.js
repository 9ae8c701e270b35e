// Page views: the first one, those of a page that changes its address without loading (SPA), and returns from the bfcache.

let page; // the address's path
let url; // the address when the view began
let shown; // the fields that the page names for the view

// Begin a page view, and end the one before.
const begin = (fields) => {
  if (view && visible) report();
  close();
  forgetAds();
  counted = new Set();
  page = location.pathname;
  shown = fields;
  view = newId();
  began = until = performance.now();
  engagedTime = visibleTime = depth = reported = engagedUntil = visible = 0;
  notice({});
  send("page_view", {
    referrer: url || document.referrer,
    url: (url = location.href),
    title: document.title,
    language: navigator.language,
    time_zone: Intl.DateTimeFormat().resolvedOptions().timeZone,
    viewport_width: innerWidth,
    ...fields,
  });
};
