// The values that the tracker works with. The build writes each of them in place of its name.

const REPORT_MS = 90_000; // the engagement is reported so long after the page view: the join's window
const HELD_MS = 92_000; // a report that the browser holds goes so long after the page view: behind our own at REPORT_MS
const ENGAGED_MS = 5_000; // a sign of the reader keeps the page engaged so long
const TICK_MS = 1_000; // how often the draft of the report is written anew

const VIEWABLE_MS = 1_000; // MRC: an ad counts once it has been in view so long without a break
const VIEWABLE_SHARE = 0.5; // MRC: in view is this share of its pixels,
const LARGE_SHARE = 0.3; // or this share of a large ad,
const LARGE_AREA = 242_500; // which has at least so many pixels

const MOST_KEPT = 100; // events in the queue
const MOST_SENT = 20; // events in one request
const KEEPALIVE_BYTES = 20_000; // browsers refuse more than 64 KiB under way; a character may have three bytes
const FRESH_MS = 120_000; // an entry of another tab is left to that tab so long
const KEPT_MS = 518_400_000; // 6 days: a copy that comes later than the dedup window (7 days) would be doubled
const PAUSE_S = 10; // before a retry, where the answer has no Retry-After

const PREFIX = "instream."; // of every key
const ID = "instream.id"; // keys of localStorage
const EVENT = "instream.e.";
const TAB = "instream.tab"; // keys of sessionStorage
const AFTER = "instream.after"; // so that a clock that is set back stops no more than a tab
const SEQ = "instream.seq";
const AD = "[data-ad_slot]"; // elements that hold an ad
const MOST_SLOTS = 3; // numbers of ad slots: 1 to 3
