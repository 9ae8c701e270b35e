"""Pages that use a tracker as its publisher documents it, and say what they sent.

Each page notes the kind and the id of every event that its tracker makes, by the tracker's own hook, and posts the list at
the end. The trackers are the files of their packages, as npm installs them.
"""

from typing import Final

PACKAGES: Final = (
    "@snowplow/browser-tracker@4.6.9",
    "@snowplow/browser-plugin-link-click-tracking@4.6.8",
    "snowplow-three@npm:@snowplow/browser-tracker@3.24.6",
    "@snowplow/browser-plugin-ad-tracking@3.24.6",
    "@segment/analytics-next@1.84.3",
)
_START: Final = """<!doctype html><title>An article</title>
<body style="height: 3000px"><a id="link" href="#x">a link</a>SCRIPTS<script>
const sent = [], pause = s => new Promise(done => setTimeout(done, s * 1000));
setInterval(() => document.dispatchEvent(new Event("mousemove")), 200);
const finish = () => fetch("/done", {method: "POST", body: JSON.stringify(["NAME", sent])});
(async () => {
"""
_END: Final = """
finish();
})();
</script>"""
_SNOWPLOW: Final = """
const {newTracker, enableActivityTracking, trackPageView, trackStructEvent, trackSelfDescribingEvent}
  = snowplowBrowserTracking;
const own = "iglu:instream/event/jsonschema/1-0-0", vendor = "iglu:com.snowplowanalytics.snowplow/";
const spy = {afterTrack: made => sent.push([made.e, made.eid])};
const describe = (schema, data) => trackSelfDescribingEvent({event: {schema, data}});
"""
_PINGS: Final = """
enableActivityTracking({minimumVisitLength: 1, heartbeatDelay: 1});
let calls = 0;
trackPageView({contextCallback: () => [{schema: own, data: {engaged_ms: 1000 * calls++, article_id: "a-7"}}]});
"""
FOUR: Final = (
    _SNOWPLOW
    + """
const {LinkClickTrackingPlugin, enableLinkClickTracking} = snowplowLinkClickTracking;
const kept = new Set();
let refused = false;
newTracker("four", "COLLECTOR", {
  appId: "demo", plugins: [spy, LinkClickTrackingPlugin()],
  onRequestSuccess: events => events.forEach(event => kept.add(event.eid)),
  onRequestFailure: failure => { refused ||= failure.status === 422 && !failure.willRetry; },
});
enableLinkClickTracking();
"""
    + _PINGS
    + """
await pause(2.5);
document.getElementById("link").click();
trackStructEvent({category: "video", action: "play"});
describe(vendor + "ad_impression/jsonschema/1-0-0", {bannerId: "b-1", zoneId: "2", costModel: "cpm", cost: 5.5});
describe(vendor + "ad_click/jsonschema/1-0-0", {bannerId: "b-1", costModel: "cpc", cost: 0.25, targetUrl: "https://shop.example/"});
describe(vendor + "ad_conversion/jsonschema/1-0-0", {category: "sale"});
describe("iglu:com.example/poll/jsonschema/1-0-0", {answer: "yes"});
while (!sent.every(([, id]) => kept.has(id))) await pause(0.05);
describe("iglu:com.example/huge/jsonschema/1-0-0", {text: "x".repeat(TOO_MANY_BYTES)});
sent.pop();  // the collector refuses it for good, and the tracker gives it up
while (!refused) await pause(0.05);
trackStructEvent({category: "video", action: "end"});
await pause(1.5);
"""
)
"""Snowplow 4, by POST."""
THREE: Final = (
    _SNOWPLOW
    + """
const {AdTrackingPlugin, trackAdImpression, trackAdClick, trackAdConversion} = snowplowAdTracking;
newTracker("NAME", "COLLECTOR",
  {appId: "demo", eventMethod: "METHOD", maxGetBytes: 7500, plugins: [spy, AdTrackingPlugin()]});
"""
    + _PINGS
    + """
await pause(1.5);
trackAdImpression({impressionId: "i", costModel: "cpm", cost: 2, bannerId: "b-2", zoneId: "3", campaignId: "c-1"});
trackAdClick({targetUrl: "https://shop.example/", clickId: "k", costModel: "cpc", cost: 0.5, bannerId: "b-2"});
trackAdConversion({conversionId: "v", category: "sale", initialValue: 7});
trackStructEvent({category: "video", action: "play"});
await pause(2);
"""
)
"""Snowplow 3 with its plugin of ads, by GET or by beacon."""
SEGMENT: Final = """
const [analytics] = await AnalyticsNext.AnalyticsBrowser.load({writeKey: "demo", cdnSettings: {integrations: {"Segment.io": {
  apiKey: "demo", apiHost: "HOST/v1", protocol: "http", deliveryStrategy: STRATEGY}}}});
let view;
await analytics.addSourceMiddleware(({payload, next}) => {
  if (payload.type() === "page") view = crypto.randomUUID();
  payload.obj.context.page_view_id = view;
  sent.push([payload.type(), payload.obj.messageId]);
  next(payload);
});
await analytics.page("sport", "Article", {articleId: "a-7"});
await analytics.track("Ad Viewed", {adSlot: 1, creativeId: "c", revenue: 0.0055, currency: "EUR"});
await analytics.track("Ad Clicked", {adSlot: 1, creativeId: "c"});
await analytics.track("Page Engagement", {dwellMs: 9000, engagedMs: 8000, scrollPct: 71.6});
await analytics.track("Order Completed", {total: 7});
await analytics.identify("u-7", {plan: "gold"});
await analytics.group("g-1", {name: "G"});
await analytics.alias("u-8");
await analytics.screen("Home");
await pause(2);
"""
_BATCHING: Final = '{strategy: "batching", config: {size: 4, timeout: 500}}'
_FILES: Final = {
    "four": (
        "@snowplow/browser-tracker/dist/index.umd.js",
        "@snowplow/browser-plugin-link-click-tracking/dist/index.umd.js",
    ),
    "three": ("snowplow-three/dist/index.umd.js", "@snowplow/browser-plugin-ad-tracking/dist/index.umd.js"),
    "segment": ("@segment/analytics-next/dist/umd/index.js",),
}


def pages(collector: str, too_many_bytes: int) -> dict[str, str]:
    """The pages by their names, for a collector at the address `collector`."""
    made = {
        "snowplow-4-post": ("four", FOUR),
        "snowplow-3-get": ("three", THREE.replace("METHOD", "get")),
        "snowplow-3-beacon": ("three", THREE.replace("METHOD", "beacon")),
        "segment-single": ("segment", SEGMENT.replace("STRATEGY", "undefined")),
        "segment-batch": ("segment", SEGMENT.replace("STRATEGY", _BATCHING)),
    }
    found = {}
    for name, (files, body) in made.items():
        scripts = "".join(f'<script src="/packages/{file}"></script>' for file in _FILES[files])
        page = _START.replace("SCRIPTS", scripts) + body + _END
        for word, value in (
            ("NAME", name),
            ("COLLECTOR", collector),
            ("HOST", collector.removeprefix("http://")),
            ("TOO_MANY_BYTES", str(too_many_bytes)),
        ):
            page = page.replace(word, value)
        found[name] = page
    return found
