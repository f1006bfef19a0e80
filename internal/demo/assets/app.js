// Keeps the page as the topic is, by the server-sent events of /events. Nothing here makes markup of text: keys,
// values and colours go in as text and as properties only.
"use strict";

const main = document.querySelector("[data-events]");
const statusLine = document.querySelector(".status");
const empty = document.querySelector(".empty");
const form = document.querySelector("form");
const neutral = "var(--neutral)";

function showStatus(live, text) {
  statusLine.className = "status " + (live ? "live" : "reconnecting");
  statusLine.textContent = text;
}

function fromServer(s) {
  showStatus(s.live, s.live ? "live" : s.ready ? "reconnecting" : "waiting for the cache");
}

function flash(el) {
  el.classList.remove("flash");
  void el.offsetWidth; // so that the animation starts again
  el.classList.add("flash");
}

function element(tag, className) {
  const el = document.createElement(tag);
  el.className = className;
  return el;
}

// The page of all keys.
const index = main.id === "index" && {
  list: main.querySelector(".boxes"),

  find(id) {
    return this.list.querySelector(`[data-id="${CSS.escape(id)}"]`);
  },

  create(b) {
    const el = element("a", "box");
    el.dataset.key = b.key;
    el.dataset.id = b.id;
    el.href = b.href;
    const label = element("span", "label");
    label.append(element("b", "key"), element("span", "text"), element("small", "offset"));
    label.firstChild.textContent = b.key;
    el.append(label);
    let after = this.list.lastElementChild; // boxes are in key order
    while (after && after.dataset.key > b.key) after = after.previousElementSibling;
    if (after) after.after(el);
    else this.list.prepend(el);
    return el;
  },

  put(b) {
    const el = this.find(b.id) || this.create(b);
    el.style.backgroundColor = b.color || neutral;
    el.querySelector(".text").textContent = b.text;
    el.querySelector(".offset").textContent = b.offset;
    return el;
  },

  remove(b) {
    this.find(b.id)?.remove();
  },

  state(s) {
    const ids = new Set(s.boxes.map((b) => b.id));
    for (const el of [...this.list.children]) if (!ids.has(el.dataset.id)) el.remove();
    for (const b of s.boxes) this.put(b);
  },

  isEmpty() {
    return !this.list.firstElementChild;
  },
};

// The page of one key.
const one = main.id === "one" && {
  put(b) {
    let el = main.querySelector(":scope > div");
    if (!el) {
      el = document.createElement("div");
      el.textContent = "Hello Kafka!";
      main.prepend(el);
    }
    el.style.backgroundColor = b.color || neutral;
    return el;
  },

  remove() {
    main.querySelector(":scope > div")?.remove();
  },

  state(s) {
    if (s.boxes.length) this.put(s.boxes[0]);
    else if (s.ready) this.remove();
  },

  isEmpty() {
    return !main.querySelector(":scope > div");
  },
};

const page = index || one;
let ready = false;

function changed() {
  empty.hidden = !ready || !page.isEmpty();
}

function connect() {
  const events = new EventSource(main.dataset.events);
  const on = (name, f) => events.addEventListener(name, (e) => { f(JSON.parse(e.data)); changed(); });
  on("state", (s) => { ready = s.ready; fromServer(s); if (s.ready) page.state(s); });
  on("status", (s) => { ready = s.ready; fromServer(s); });
  on("put", (b) => flash(page.put(b)));
  on("delete", (b) => page.remove(b));
  events.onerror = () => {
    showStatus(false, "reconnecting");
    if (events.readyState === EventSource.CLOSED) setTimeout(connect, 2000); // the browser gave up; we do not
  };
}
connect();

form?.addEventListener("submit", async (e) => {
  e.preventDefault();
  const button = form.querySelector("button");
  const error = form.querySelector(".error");
  button.disabled = true;
  try {
    const r = await fetch("/", {
      method: "POST",
      headers: { Accept: "application/json" },
      body: new URLSearchParams(new FormData(form)),
    });
    const answer = await r.json();
    error.textContent = answer.error || "";
    if (!answer.error && index) form.elements.color.select();
  } catch {
    error.textContent = "The demo application did not answer; is it still running?";
  } finally {
    button.disabled = false;
  }
});
