// Ads: an impression once an ad was viewable (MRC), a click once its element, or a frame in it, was clicked.

const timers = new Map(); // ad -> its timer, while it is in view
let counted; // ads of this page view that had their impression

// An attribute that is missing is NaN, which JSON writes as null: the field is absent.
const adEvent = (event_type, { dataset }) =>
  send(event_type, { ...dataset, ad_slot: +dataset.ad_slot, revenue_micros: +dataset.revenue_micros });

const observer = new IntersectionObserver(
  (entries) =>
    entries.map(({ target, intersectionRatio, boundingClientRect: { width, height } }) => {
      if (intersectionRatio < (width * height < LARGE_AREA ? VIEWABLE_SHARE : LARGE_SHARE)) {
        clearTimeout(timers.get(target));
        timers.delete(target);
      } else if (!timers.has(target))
        timers.set(
          target,
          setTimeout(() => {
            if (!counted.has(target)) adEvent("ad_impression", target);
            counted.add(target);
          }, VIEWABLE_MS),
        );
    }),
  { threshold: [LARGE_SHARE, VIEWABLE_SHARE] },
);

// Watch the ads of the page; one that is watched already stays as it is.
const watchAds = () => document.querySelectorAll(AD).forEach((element) => observer.observe(element));

// Nobody sees the page: what was in view begins anew when somebody does.
const forgetAds = () => {
  observer.disconnect();
  timers.forEach(clearTimeout);
  timers.clear();
};

const click = ({ target }) => {
  const ad = target.closest?.(AD);
  if (ad) adEvent("ad_click", ad);
};
