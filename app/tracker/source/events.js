// Events: who reads (visitor, tab, page view), and the number of each event in its tab.
// The number makes the loss between browser and collector visible: a gap is an event that never arrived.

const { key, endpoint, consent, ...tagged } = document.currentScript.dataset; // `tagged`: fields of the page view
const address = (endpoint || new URL("/v1/events", document.currentScript.src)) + "?key=" + key;

let store; // localStorage,
let session; // and sessionStorage; or an object, where the browser has neither for us, or no room
let visitor;
let view; // the id of the page view; nothing happens without one

// A new id: the time, by which the queue sorts, and 96 random bits. crypto.randomUUID does not exist on pages without TLS.
const newId = () => [Date.now(), ...crypto.getRandomValues(new Uint32Array(3))].join("-");

// Find out who reads. A collector that sets the cookie `instream_id` decides; otherwise the browser keeps an id of its own.
const identify = () => {
  const id = newId();
  try {
    store = localStorage;
    session = sessionStorage;
    store[ID] ||= id;
    session[TAB] ||= id;
  } catch {
    store = session = {};
    store[ID] = session[TAB] = id;
  }
  visitor = /instream_id=([\w-]+)/.exec(document.cookie)?.[1] || store[ID];
};

const nextNumber = () => (session[SEQ] = -~session[SEQ]); // one more; the first is 1

// Keep an event of this page view in the queue; one with the same number is replaced. Returns its key there.
const keep = (event_type, fields, seq = nextNumber()) => {
  const event_id = view + "-" + seq;
  const key = EVENT + event_id;
  const text = JSON.stringify({
    event_id,
    event_type,
    page_view_id: view,
    occurred_at: Date.now(),
    visitor_id: visitor,
    webdriver: navigator.webdriver,
    tab: session[TAB],
    seq,
    ...fields,
  });
  try {
    store[key] = text;
  } catch {
    store = { [key]: text }; // full by now: this page goes on in memory
  }
  return key;
};

// Make an event and send it.
const send = (event_type, fields) => {
  if (view) {
    keep(event_type, fields);
    flush();
  }
};
