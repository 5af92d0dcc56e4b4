// The page: the form, a generation at a time, and what is shown of it.

import { Announcer } from "./announcer.js";
import { completionOf, Failure, forget, getJson } from "./api.js";
import { Gauge } from "./gauge.js";
import { Output } from "./output.js";
import { settingsOf } from "./settings.js";
import { inMilliseconds } from "./steps.js";
import { Timeline } from "./timeline.js";

const REFRESH_EVERY = 250;
const TOKEN_KEY = "foveal-token";
const ENDINGS = {
  length: "it has as many tokens as asked for",
  stop: "a stop text came",
  end: "the model ended it",
  complete: "it follows its rule to the end",
  capacity: "the model's context is full",
  deadline: "its time is over",
  cancelled: "the server ended it",
};

const $ = (id) => document.getElementById(id);
const form = $("form");
const output = new Output($("output"));
const announcer = new Announcer($("announcer"));
const places = []; // where each token's text stands
const timeline = new Timeline(
  {
    scroller: $("scroller"),
    spacer: $("spacer"),
    canvas: $("canvas"),
    rows: $("rows"),
    axisTop: $("axis-top"),
    axisMiddle: $("axis-middle"),
    legend: $("legend"),
    readout: $("readout"),
    summary: $("timeline-summary"),
    body: $("table-body"),
    details: $("table-details"),
  },
  (index) => output.mark(...(places[index] ?? [-1, -1])),
);
const gauge = new Gauge({ cells: $("gauge-cells"), text: $("gauge-text") }, () => getJson("status", token()), onStatus);

let models = []; // of the last status
let sessionHeader = null; // by which requests of a session are routed, where there are several servers
let running = null; // the AbortController of the generation that is going on
let session = null; // {id, position} once one was begun

// Access.

function token() {
  return $("token").value.trim();
}

function keepToken() {
  if (token()) sessionStorage.setItem(TOKEN_KEY, token());
  else sessionStorage.removeItem(TOKEN_KEY);
  hush();
  loadModels();
  gauge.now();
}

function askForToken() {
  $("access").open = true;
  $("token").focus();
}

// Models.

async function loadModels() {
  const select = $("model");
  try {
    const { data } = await getJson("v1/models", token());
    const chosen = select.value;
    select.replaceChildren(...data.map(({ id }) => new Option(id, id, false, id === chosen)));
    select.disabled = data.length === 0;
    onModel();
  } catch (error) {
    if (!(error instanceof Failure)) throw error;
    if (error.status === 401) fail(error);
  }
}

function onModel() {
  gauge.model = $("model").value;
  showModel();
  if (!running && !timeline.length) timeline.begin(stages());
}

function onStatus(status) {
  models = status.models ?? [];
  sessionHeader = status.session_header ?? null;
  if (!$("model").options.length) loadModels();
  showModel();
  if (!running && !timeline.length && !$("rows").children.length) timeline.begin(stages());
}

function chosenModel() {
  return models.find((model) => model.id === $("model").value);
}

function stages() {
  return chosenModel()?.stages ?? [];
}

/** Without a tokenizer prompts and answers are ids. */
function isText() {
  return chosenModel()?.tokenizer !== false;
}

function promptIn(text) {
  if (isText()) return text;
  const ids = text.split(/[\s,]+/).filter(Boolean).map(Number);
  if (ids.every((id) => Number.isSafeInteger(id) && id >= 0)) return ids;
  throw new Failure("This model has no tokenizer: its prompts are ids, whole numbers with spaces between them.");
}

function showModel() {
  const model = chosenModel();
  $("prompt-hint").textContent = isText() ? "" : "ids, with spaces between them";
  const facts = model && [model.architecture, model.hierarchy, model.context && `context ${model.context}`];
  const text = facts ? facts.filter(Boolean).join(" · ") : "";
  if ($("model-facts").textContent !== text) $("model-facts").textContent = text;
}

// A generation.

/** @param {string} before what the prompt comes after; a field would change its line breaks */
async function generate(before = "") {
  if (running) return;
  const keeps = $("session").checked;
  const goesOn = keeps && session !== null;
  let prompt, settings;
  hush();
  try {
    prompt = promptIn(before + form.elements.prompt.value);
    if (!prompt.length && !goesOn) throw new Failure("The prompt is empty, and these models need at least one token.");
    settings = settingsOf(form);
  } catch (error) {
    return fail(error);
  }
  const body = { model: $("model").value, prompt, ...settings };
  if (keeps) Object.assign(body, { session: session?.id ?? newName(), position: session?.position ?? 0 });
  await run(body, goesOn);
}

async function run(body, goesOn) {
  const wasFocused = document.activeElement;
  running = new AbortController();
  setBusy(true);
  if (wasFocused === $("generate")) $("stop").focus();
  places.length = 0;
  timeline.begin(stages());
  output.begin(isText() ? body.prompt : body.prompt.map((id) => `${id} `).join(""), goesOn);
  announcer.say("Generating.");
  const figures = new Figures();
  const timer = setInterval(() => refresh(figures), REFRESH_EVERY);
  showText();
  let last = {};
  try {
    for await (const chunk of completionOf(body, token(), running.signal, routing(body.session))) last = { ...last, ...take(chunk, figures) };
    end(body, last);
  } catch (error) {
    if (body.session) output.drop(); // the session stands where it stood
    if (running.signal.aborted) say(`Stopped after ${timeline.length} tokens.`, body.session);
    else fail(error);
  } finally {
    clearInterval(timer);
    output.flush();
    refresh(figures);
    const hadFocus = document.activeElement === $("stop");
    running = null;
    setBusy(false);
    if (hadFocus) $("generate").focus();
  }
}

/** Show what a chunk brings; gives what it says of the end. */
function take(chunk, figures) {
  const text = chunk.choices?.[0]?.text ?? "";
  const said = chunk.foveal ?? {};
  const tokens = said.tokens ?? [];
  let [start] = output.add(text);
  for (const token of tokens) {
    figures.count();
    places.push([start, start + token.text.length]);
    start += token.text.length;
    timeline.add(token);
  }
  const reason = said.finish_reason ?? chunk.choices?.[0]?.finish_reason;
  return { ...(reason && { reason }), ...(said.session && { session: said.session }) };
}

function end(body, last) {
  const reason = ENDINGS[last.reason];
  say(reason ? `Done: ${reason}.` : "Done.");
  if (!body.session) return;
  if (last.session?.position == null) {
    output.drop();
    return fail(new Failure("The server could not keep the session; it stands where it stood before."));
  }
  session = { id: body.session, model: body.model, position: last.session.position };
  form.elements.prompt.value = "";
  showSession();
}

function say(text, isDropped) {
  const kept = isDropped ? " The session stands where it stood." : "";
  $("phase").textContent = `${text}${kept}`;
  announcer.say(`${text}${kept} ${timeline.inWords()}`);
}

function refresh(figures) {
  figures.show();
  timeline.refresh();
  if (running) announcer.mention(`${timeline.length} tokens so far.`);
}

/** What the figures need beside the timeline's steps: clocks of this page. */
class Figures {
  #asked = performance.now();
  #first = NaN;
  #last = NaN;

  count() {
    this.#last = performance.now();
    if (Number.isNaN(this.#first)) this.#first = this.#last;
  }

  show() {
    const { steps, length } = timeline;
    const seconds = (this.#last - this.#first) / 1000;
    $("figure-tokens").textContent = String(length);
    $("figure-rate").textContent = length > 1 && seconds > 0 ? ((length - 1) / seconds).toFixed(seconds * 10 < length ? 0 : 1) : "–";
    put("figure-first", (this.#first - this.#asked) / 1000);
    put("figure-median", steps.quantile(0.5));
    put("figure-tail", steps.quantile(0.99));
  }
}

function put(id, seconds) {
  $(id).textContent = Number.isFinite(seconds) ? `${inMilliseconds(seconds)} ms` : "–";
}

function setBusy(isBusy) {
  $("generate").disabled = isBusy;
  $("stop").disabled = !isBusy;
  $("copy").disabled = isBusy || !output.text;
  $("output").setAttribute("aria-busy", String(isBusy));
  if (isBusy) $("phase").textContent = "Generating…";
  document.body.classList.toggle("busy", isBusy);
  gauge.isBusy = isBusy;
  gauge.now();
}

/** On a phone the text stands below the form: bring it into sight. */
function showText() {
  const { top, bottom } = $("output").getBoundingClientRect();
  if (bottom <= innerHeight && top >= 0) return;
  const isCalm = matchMedia("(prefers-reduced-motion: reduce)").matches;
  if (innerWidth < 900) $("text-title").scrollIntoView({ behavior: isCalm ? "auto" : "smooth", block: "start" });
}

// Sessions.

function newName() {
  const bytes = crypto.getRandomValues(new Uint8Array(12));
  return `page-${[...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("")}`;
}

/** Headers that bring a request to the server that has its session. */
function routing(name) {
  return name && sessionHeader ? { [sessionHeader]: name } : {};
}

function showSession() {
  $("session-state").hidden = !session;
  $("session-text").textContent = session ? `It stands at ${session.position} tokens.` : "";
  form.elements.prompt.placeholder = session ? "What comes next; leave empty to continue" : "";
}

function leaveSession() {
  if (session) forget(`v1/sessions/${session.id}?model=${encodeURIComponent(session.model)}`, token(), routing(session.id));
  session = null;
  $("resend").hidden = true;
  showSession();
}

/** Where the server has lost the session: begin another one with all that is here. */
function resend() {
  const before = output.text;
  leaveSession();
  generate(before);
}

// Failures.

function fail(error) {
  if (!(error instanceof Failure)) {
    console.error(error);
    error = new Failure(`The page failed: ${error.message}`);
  }
  $("alert").textContent = error.message;
  $("alert").classList.add("shown");
  $("phase").textContent = "";
  if (error.status === 401) askForToken();
  $("resend").hidden = !(error.code === "session_lost" && session);
  if (innerWidth < 900) $("alert").scrollIntoView({ block: "center" });
}

function hush() {
  $("alert").textContent = "";
  $("alert").classList.remove("shown");
  $("resend").hidden = true;
}

async function copy() {
  const text = output.text;
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    copyOldWay(text); // pages that came without TLS from another machine have no clipboard
  }
  announcer.say("Copied.");
  $("copy").textContent = "Copied";
  setTimeout(() => ($("copy").textContent = "Copy"), 1500);
}

function copyOldWay(text) {
  const field = document.createElement("textarea");
  field.value = text;
  document.body.append(field);
  field.select();
  document.execCommand("copy");
  field.remove();
  $("copy").focus();
}

// Wiring.

form.addEventListener("submit", (event) => {
  event.preventDefault();
  generate();
});
$("stop").addEventListener("click", () => running?.abort());
$("copy").addEventListener("click", copy);
$("resend").addEventListener("click", resend);
$("model").addEventListener("change", () => {
  leaveSession();
  onModel();
  gauge.now();
});
$("session").addEventListener("change", leaveSession);
$("session-new").addEventListener("click", () => {
  leaveSession();
  form.elements.prompt.focus();
});
$("token").addEventListener("change", keepToken);
$("token").addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.ctrlKey || event.metaKey) return;
  event.preventDefault(); // it is no wish to generate
  keepToken();
});
$("token-forget").addEventListener("click", () => {
  $("token").value = "";
  keepToken();
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && running) running.abort();
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey) && form.contains(event.target)) {
    event.preventDefault();
    generate();
  }
});
if (/Mac|iPhone|iPad/.test(navigator.userAgent)) $("generate").querySelector("kbd").textContent = "⌘ ↵";

$("token").value = sessionStorage.getItem(TOKEN_KEY) ?? "";
setBusy(false);
showSession();
loadModels();
