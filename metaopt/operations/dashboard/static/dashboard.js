// The page of `metaopt dashboard`: receives changes as events, and sends what a person wants of a job.
// The server renders and escapes all HTML; text of the JSON API is set as text.
"use strict";

const SILENCE = 40_000; // without any event before the connection counts as lost [ms]
const byId = (id) => document.getElementById(id);
let token = takeToken();
let ahead = 0; // of the server's clock over this one [s]
let filter = "all";

function takeToken() {
  const given = /[#&]token=([^&]+)/.exec(location.hash);
  if (given) {
    sessionStorage.setItem("token", decodeURIComponent(given[1]));
    history.replaceState(null, "", location.pathname);
  }
  return sessionStorage.getItem("token") ?? "";
}

const ask = (path, options = {}) =>
  fetch(path, { ...options, headers: { ...options.headers, ...(token && { Authorization: `Bearer ${token}` }) } });

// ---- what is shown

function made(html) {
  const box = document.createElement("template");
  box.innerHTML = html;
  return box.content.firstElementChild;
}

/** Changes a part of the page, and leaves the focus where it was. */
function keepingFocus(part, change) {
  const focused = part.contains(document.activeElement) ? document.activeElement : null;
  const wanted = focused && { ...focused.dataset };
  const changed = change();
  if (!wanted) return;
  const same = [...changed.querySelectorAll("button")].find((each) =>
    Object.entries(wanted).every(([name, value]) => each.dataset[name] === value));
  (same ?? changed.querySelector(".actions button") ?? changed.querySelector("button"))?.focus();
}

function showRow(id, html) {
  const before = byId(`job-${id}`), after = made(html);
  if (!before) return byId("jobs").append(after);
  after.classList.toggle("changed", before.dataset.state !== after.dataset.state);
  keepingFocus(before, () => (before.replaceWith(after), after));
}

function showOrder(order) {
  const list = byId("jobs"), wanted = new Set(order.map(String));
  for (const row of [...list.children]) if (!wanted.has(row.dataset.id)) row.remove();
  order.forEach((id, place) => {
    const row = byId(`job-${id}`);
    if (row && list.children[place] !== row) keepingFocus(row, () => (list.insertBefore(row, list.children[place]), row));
  });
}

/** Shows a panel again, with the same parts unfolded. */
function showPanel(panel, html) {
  const parts = () => [...panel.querySelectorAll("details")];
  const unfolded = new Set(parts().filter((each) => each.open).map((each) => each.dataset.openPart));
  panel.innerHTML = html;
  for (const each of parts()) each.open = unfolded.has(each.dataset.openPart);
  return panel;
}

function apply(change) {
  ahead = change.now - Date.now() / 1000;
  for (const [id, html] of Object.entries(change.rows ?? {})) showRow(id, html);
  if (change.order) showOrder(change.order);
  for (const [name, html] of Object.entries(change.panels ?? {})) {
    const panel = byId(`panel-${name}`);
    if (panel) keepingFocus(panel, () => showPanel(panel, html));
  }
  byId("main").dataset.version = change.version;
  showFilter();
  showTimes();
}

function showFilter() {
  const words = byId("search")?.value.trim().toLowerCase() ?? "";
  let any = false;
  for (const row of byId("jobs")?.children ?? []) {
    row.hidden = (filter !== "all" && row.dataset.kind !== filter) || !row.dataset.words.includes(words);
    any ||= !row.hidden;
  }
  if (byId("none")) byId("none").hidden = any;
  for (const each of document.querySelectorAll("[data-filter][aria-pressed]"))
    each.setAttribute("aria-pressed", String(each.dataset.filter === filter));
}

function distance(seconds) {
  const size = Math.abs(seconds);
  const [value, unit] = size < 100 ? [size, "s"] : size < 5400 ? [size / 60, "min"] : size < 172_800 ? [size / 3600, "h"] : [size / 86_400, "days"];
  const text = `${Math.round(value)} ${unit}`;
  return seconds < -1 ? `in ${text}` : `${text} ago`;
}

function showTimes() {
  const now = Date.now() / 1000 + ahead;
  for (const each of document.querySelectorAll("time[data-time]")) {
    each.title ||= new Date(each.dataset.time * 1000).toLocaleString();
    const text = distance(now - each.dataset.time);
    if (each.textContent !== text) each.textContent = text;
  }
  for (const each of document.querySelectorAll("[data-seen]"))
    each.classList.toggle("late", now - each.dataset.seen > 60);
}

async function reload() {
  const answer = await ask("/");
  const main = answer.ok && new DOMParser().parseFromString(await answer.text(), "text/html").getElementById("main");
  if (!main) return false;
  const words = byId("search")?.value ?? "";
  byId("main").replaceWith(main);
  if (byId("search")) byId("search").value = words;
  ahead = main.dataset.now - Date.now() / 1000;
  showFilter();
  showTimes();
  return main.dataset.shown === "true";
}

// ---- events

const pause = (time) => new Promise((done) => setTimeout(done, time));

function showLive(isLive) {
  byId("live").classList.toggle("on", isLive);
  byId("live").textContent = isLive ? "live" : "connecting …";
}

/** Reads events until the connection ends. `EventSource` could not send the token. */
async function follow() {
  const stop = new AbortController();
  let watch;
  const alive = () => (clearTimeout(watch), (watch = setTimeout(() => stop.abort(), SILENCE)));
  try {
    alive();
    const answer = await ask(`/api/events?version=${byId("main").dataset.version}`, { signal: stop.signal });
    if (answer.status === 401) await askToken();
    if (!answer.ok) return;
    showLive(true);
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    for (let text = "", part; !(part = await reader.read()).done; ) {
      alive();
      const events = (text += part.value).split("\n\n");
      text = events.pop();
      for (const event of events.filter((each) => each.startsWith("data: "))) {
        const change = JSON.parse(event.slice(6));
        if (change.reload) await reload();
        else apply(change);
      }
    }
  } finally {
    clearTimeout(watch);
    stop.abort();
  }
}

async function followForever() {
  for (let wait = 500; ; wait = Math.min(wait * 2, 10_000)) {
    const started = Date.now();
    await follow().catch(() => {});
    showLive(false);
    if (Date.now() - started > 20_000) wait = 500;
    await pause(wait * (0.5 + Math.random()));
  }
}

// ---- what a person wants

let hush;
function say(text) {
  byId("said").textContent = text;
  byId("said").classList.add("on");
  clearTimeout(hush);
  hush = setTimeout(() => byId("said").classList.remove("on"), 6000);
}

/** Asks for the token once at a time; resolves to whether one was given. */
let asking;
function askToken() {
  asking ??= new Promise((done) => {
    const dialog = byId("ask"), field = byId("token");
    field.value = "";
    dialog.returnValue = "";
    dialog.addEventListener("close", () => {
      asking = undefined;
      const given = dialog.returnValue === "ok" && field.value.trim();
      if (given) sessionStorage.setItem("token", (token = given));
      done(Boolean(given));
    }, { once: true });
    dialog.showModal();
  });
  return asking;
}

const WANTED = { pause: "pauses after its step", stop: "stops after its step", skip: "is skipped", resume: "is resumed", retry: "is queued again", move: "moved" };

async function steer(id, action, body) {
  const options = { method: "POST", headers: body && { "Content-Type": "application/json" }, body: body && JSON.stringify(body) };
  const answer = await ask(`/api/queue/${id}/${action}`, options);
  if (answer.status === 401 && (await askToken())) return steer(id, action, body);
  const found = await answer.json().catch(() => ({}));
  if (!answer.ok) say(typeof found.detail === "string" ? found.detail : `not possible (${answer.status})`);
  else say(found.request || !["pause", "stop"].includes(action) ? `Job ${id} ${WANTED[action]}` : `Job ${id} is ${found.state}`);
}

function element(name, text, children = []) {
  const found = document.createElement(name);
  if (text !== undefined) found.textContent = text;
  found.append(...children);
  return found;
}

async function open(id) {
  const [answer, logs, losses] = await Promise.all([ask(`/api/queue/${id}`), ask(`/api/queue/${id}/log?lines=200`), ask(`/api/losses/${id}`)]);
  const job = await answer.json();
  if (!answer.ok) return say(job.detail);
  const log = await logs.json().catch(() => ({})), found = await losses.json().catch(() => ({}));
  const title = element("h2", `${job.id} ${job.name}`), close = element("button", "Close");
  title.id = "detail-title";
  close.type = "button";
  close.addEventListener("click", () => byId("detail").close());
  const when = (value) => value && new Date(value * 1000).toLocaleString();
  const facts = {
    state: [job.state, job.request && `will ${job.request}`, job.waits].filter(Boolean).join(", "),
    workflow: job.workflow, folder: job.folder, priority: job.priority,
    after: Object.entries(job.depends_on).map(([each, state]) => `${each} (${state})`).join(", "),
    attempt: job.attempt && `${job.attempt} (${job.failures} failed, at most ${job.max_attempts})`,
    steps: job.steps && job.steps.toLocaleString(),
    process: job.owner && `${job.owner.pid} on ${job.owner.host}, slot ${job.owner.slot}`,
    needs: job.needs, added: when(job.created), started: when(job.started), ended: when(job.ended), metaopt: job.version,
  };
  const list = element("dl");
  for (const [name, value] of Object.entries(facts)) if (value || value === 0) list.append(element("dt", name), element("dd", value));
  if (job.run_ids.length) {
    const links = job.run_ids.map((run) => {
      const page = found.pages?.[run], link = element(page ? "a" : "code", run);
      if (page) Object.assign(link, { href: page, target: "_blank", rel: "noopener" });
      return element("div", undefined, [link]);
    });
    list.append(element("dt", "runs"), element("dd", undefined, links));
  }
  const parts = [element("div", undefined, [title, close]), list];
  parts[0].className = "head";
  if (job.error) parts.push(element("h3", "Error"), element("pre", job.error));
  parts.push(element("h3", log.is_whole === false ? "End of the log" : "Log"), element("pre", log.text || log.problem || log.detail || "empty"));
  parts.push(element("h3", "Parameters"), element("pre", JSON.stringify(job.config, null, 1)));
  byId("detail").replaceChildren(...parts);
  byId("detail").showModal();
  const shown = parts.find((each) => each.tagName === "PRE" && each.textContent === log.text);
  if (shown) shown.scrollTop = shown.scrollHeight;
}

document.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (!button) return;
  const { action, open: opened, filter: chosen } = button.dataset, row = button.closest(".job");
  const failed = () => say("The dashboard does not respond");
  if (opened) open(opened).catch(failed);
  else if (chosen) (filter = chosen), showFilter();
  else if (action && row) {
    const step = { up: 1, down: -1 }[action];
    const body = step && { priority: Number(row.dataset.priority) + step };
    steer(row.dataset.id, step ? "move" : action, body).catch(failed);
  }
});
document.addEventListener("input", (event) => event.target.id === "search" && showFilter());
byId("detail").addEventListener("click", (event) => event.target === byId("detail") && byId("detail").close());

async function start() {
  ahead = byId("main").dataset.now - Date.now() / 1000;
  while (byId("main").dataset.shown !== "true" && !(token && (await reload()))) if (!(await askToken())) return;
  showFilter();
  showTimes();
  setInterval(showTimes, 1000);
  await followForever();
}
start();
