// The listener to ad servers: Google Publisher Tag and Prebid say what they show, and the slot's element gets it as the
// attributes that the tracker reads. It may load before or behind both of them, and does nothing where there is none.

const places = []; // the elements of the page's slots, in the order in which they are filled

// Name the ad of an element: the first three elements are slots 1 to 3, unless the page itself numbers them.
const name = (id, ad) => {
  const element = document.getElementById(id);
  if (!element) return;
  if (!places.includes(element)) places.push(element);
  const place = places.indexOf(element) + 1;
  if (place <= MOST_SLOTS) element.dataset.ad_slot ||= place;
  Object.assign(element.dataset, ad);
  return element;
};

// Google: the creative, once it is rendered. A bid of Prebid that won there is named already, with its price.
(window.googletag ||= { cmd: [] }).cmd.push(() =>
  googletag.pubads().addEventListener("slotRenderEnded", ({ slot, isEmpty, creativeId, sourceAgnosticCreativeId }) => {
    if (isEmpty) return;
    const element = name(slot.getSlotElementId(), { creative_id: creativeId || sourceAgnosticCreativeId || "" });
    if (element) delete element.dataset.revenue_micros; // of the ad before; Prebid names the new price after this
  }),
);

// Prebid: cpm is the price of a thousand impressions, so of one it is a thousand times as many millionths.
(window.pbjs ||= { que: [] }).que.push(() =>
  pbjs.onEvent("bidWon", ({ adUnitCode, creativeId, cpm, currency }) =>
    name(adUnitCode, { creative_id: creativeId, revenue_micros: Math.round(cpm * 1000), currency }),
  ),
);
