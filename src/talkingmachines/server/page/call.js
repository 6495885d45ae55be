// The page: from the choice of a character to the end of the call.

import { Line, ask } from "/page/line.js";
import { fill, measure } from "/page/panel.js";
import { $, captions, glow, inCall, show, state, timer, toast } from "/page/view.js";

const token = new URLSearchParams(location.hash.slice(1)).get("token");
const REPORT = 2000; // ms
const MICROPHONE = { audio: { echoCancellation: true, noiseSuppression: true, autoGainControl: true } };
const RECORDING = 12000; // ms; the server gives its disk up to 8 s
const THINKING = 12000; // ms after which a character that does not answer is listening again

const page = { config: null, character: null, call: 0, line: null, gone: null, microphone: null, camera: null, began: 0, seen: null };

/* Before the call */

async function load() {
  try {
    page.config = await (await ask("GET", "/api/config", null, token)).json();
  } catch (error) {
    const locked = error.status === 401;
    const title = locked ? "This link is not complete" : "The server cannot be reached";
    const text = locked ? "Open the whole link that was printed when the server started, with everything behind the #." : "Is it running? Reload this page when it is.";
    return show("locked", { title, text });
  }
  const { name, recorded, characters, aspect } = page.config;
  document.documentElement.style.setProperty("--aspect", aspect);
  document.title = `Call ${name}`;
  $("name").textContent = name;
  $("start-text").textContent = `Call ${name}`;
  $("fine-recorded").hidden = !recorded;
  $("record").hidden = recorded;
  for (const character of characters) $("looks").append(look(character));
  choose(characters[0]);
  show("ready");
}

/** A character to choose, as a radio button. */
function look(character) {
  const label = Object.assign(document.createElement("label"), { className: "look", title: character.name });
  const input = Object.assign(document.createElement("input"), { type: "radio", name: "look", value: character.id });
  input.setAttribute("aria-label", character.name);
  input.onchange = () => choose(character);
  label.append(input, Object.assign(document.createElement("img"), { src: character.src, alt: "", width: 60, height: 60 }));
  return label;
}

function choose(character) {
  page.character = character;
  document.querySelector(`#looks input[value="${CSS.escape(character.id)}"]`).checked = true;
  $("still").onload = glow;
  $("still").src = character.src;
  $("still").alt = character.name;
}

/* Your own picture */

const own = { url: null };

function openOwn() {
  $("own-form").reset();
  $("preview").hidden = $("own-error").hidden = true;
  $("drop-text").hidden = false;
  allowOwn();
  $("own").showModal();
}

function allowOwn() {
  $("own-use").disabled = !($("file").files.length && $("consent").checked);
}

function previewOwn() {
  URL.revokeObjectURL(own.url);
  const [file] = $("file").files;
  $("own-error").hidden = true;
  $("preview").hidden = !file;
  $("drop-text").hidden = Boolean(file);
  if (file) $("preview").src = own.url = URL.createObjectURL(file);
  $("preview").onerror = () => {
    $("preview").hidden = true;
    $("drop-text").hidden = false;
    $("drop-text").textContent = file.name;
  };
  allowOwn();
}

async function useOwn(event) {
  event.preventDefault();
  const [file] = $("file").files;
  $("own-use").disabled = true;
  try {
    if (file.size > page.config.maxUpload) throw new Error(`The picture is larger than ${page.config.maxUpload / 1e6} MB.`);
    const answer = await ask("POST", "/api/pictures?consent=yes", file, token);
    const character = { ...(await answer.json()), name: "Your picture" };
    $("looks").append(look(character));
    choose(character);
    $("own").close();
  } catch (error) {
    $("own-error").textContent = error.message;
    $("own-error").hidden = false;
    allowOwn();
  }
}

/* The call */

async function start() {
  if (inCall()) return;
  show("connecting");
  const call = ++page.call;
  let microphone;
  try {
    if (!navigator.mediaDevices) throw new DOMException("", "SecurityError");
    microphone = await navigator.mediaDevices.getUserMedia(MICROPHONE);
  } catch (error) {
    if (call === page.call) show("nomic", noMicrophone(error));
    return;
  }
  if (call !== page.call) return stop(microphone); // hung up while the browser asked for it
  hearBy(microphone);
  const line = (page.line = new Line(token, page.config.iceServers));
  line.addEventListener("stream", ({ detail }) => ($("face").srcObject = detail));
  line.addEventListener("connected", connected);
  line.addEventListener("lost", () => show("reconnecting"));
  line.addEventListener("ended", ({ detail }) => over(detail.message, detail.finished));
  line.addEventListener("message", ({ detail }) => heard(detail));
  try {
    await page.gone; // the place of the call before may be the only one
    if (!line.over) await line.start(page.character.id, page.microphone);
  } catch (error) {
    waitFor(line.hangUp());
    if (call !== page.call) return;
    release();
    if (error.status === 503) show("busy", { text: `${page.config.name} is in a call with somebody else just now. Try again in a moment.` });
    else show("ended", { title: "The call did not come about", text: sentence(error.message) });
  }
}

function hearBy(microphone) {
  page.microphone = microphone;
  const [track] = microphone.getAudioTracks();
  track.enabled = !pressed("mute");
  track.onended = hearAgain;
  showMuted(pressed("mute"));
}

const deaf = () => page.microphone?.getAudioTracks()[0].readyState === "ended";

/** The microphone was unplugged or withdrawn: takes another, or the same once it is back. Until then the page says so. */
async function hearAgain() {
  showMuted(pressed("mute"));
  const call = page.call;
  const microphone = await navigator.mediaDevices.getUserMedia(MICROPHONE).catch(() => null);
  if (call !== page.call || !deaf()) return stop(microphone);
  if (!microphone) return;
  hearBy(microphone);
  page.line.hearBy(microphone);
}

function noMicrophone(error) {
  const insecure = !window.isSecureContext;
  const texts = {
    NotAllowedError: "Your browser does not let this page use the microphone. Allow it next to the address, then try again.",
    NotFoundError: "No microphone was found. Plug one in, then try again.",
    NotReadableError: "Another program is using the microphone. Close it, then try again.",
  };
  const text = insecure ? "Browsers give the microphone only to pages that come by https, or from this machine. Open the page as localhost, or put it behind TLS." : (texts[error.name] ?? "The microphone cannot be used.");
  return { title: "No microphone", text };
}

function connected() {
  page.began ||= Date.now();
  if (["connecting", "reconnecting"].includes(state())) show("listening");
  $("face").play().catch(() => toast("Click anywhere to hear the call.", 6000));
}

const turn = { over: false, words: false }; // the user's: a noise without words gets no answer

/** A message of pipecat's RTVI protocol. */
function heard({ type, data }) {
  const name = page.config.name;
  if (type === "user-started-speaking" || type === "bot-started-speaking") turn.over = turn.words = false;
  else if (type === "user-stopped-speaking") turn.over = true;
  else if (type === "user-transcription" && data.text.trim()) turn.words = true;
  // A voice on this machine is told the words first, services often later.
  const asked = type.startsWith("user-") && turn.over && turn.words && state() === "listening";
  const to = asked ? "thinking" : {
    "user-started-speaking": "listening",
    "bot-llm-started": "thinking",
    "bot-started-speaking": "speaking",
    "bot-stopped-speaking": "listening",
    "bot-interrupted": "listening",
  }[type];
  if (to && state() !== "reconnecting" && inCall() && !(type === "bot-llm-started" && state() === "speaking")) {
    show(to);
    clearTimeout(heard.timer);
    if (to === "thinking") heard.timer = setTimeout(() => state() === "thinking" && show("listening"), THINKING);
  }
  // A voice service may not say when the user speaks.
  if (type === "user-started-speaking" || type === "bot-llm-started") captions.newAnswer();
  else if (type === "bot-interrupted") captions.cut();
  else if (type === "bot-stopped-speaking") captions.readRest();
  else if (type === "bot-output") captions.character(name, data);
  else if (type === "user-transcription" && data.text.trim()) captions.user(data.text, data.final);
}

const stop = (stream) => stream?.getTracks().forEach((track) => track.stop());

function release() {
  for (const stream of [page.microphone, page.camera]) stop(stream);
  page.microphone = page.camera = null;
  page.call += 1;
  held = false;
  page.began = 0;
  page.seen = null;
  timer(0);
  document.body.classList.remove("live");
  $("face").srcObject = null;
  $("self").hidden = $("recording").hidden = true;
  showMuted(false);
  for (const id of ["camera", "record"]) press(id, false);
}

/** finished: the names of its recordings, or a promise of them that the server keeps when it has been told. */
async function over(reason, finished = []) {
  release();
  show("ended", { text: sentence(reason), again: "Call again" });
  waitFor(finished);
  offer([]);
  offer(await finished);
}

/** The next call begins after this, and after what it was to wait for already. */
function waitFor(goodbye) {
  page.gone = Promise.all([page.gone, goodbye]);
}

/** The recordings to save. finished: their names. */
function offer(finished) {
  const links = finished.map((name, index) => {
    const textContent = finished.length > 1 ? `Save recording ${index + 1}` : "Save the recording";
    const link = Object.assign(document.createElement("a"), { className: "soft", href: "#", textContent });
    link.onclick = (event) => save(event, name);
    return link;
  });
  $("recordings").replaceChildren(...links);
}

function hangUp() {
  if (inCall()) over("Thanks for the call.", page.line?.hangUp());
}

/** Saves a recording: fetched, because a link cannot carry the token. */
async function save(event, name) {
  event.preventDefault();
  try {
    const file = await (await ask("GET", `/api/recordings/${name}`, null, token)).blob();
    const link = Object.assign(document.createElement("a"), { href: URL.createObjectURL(file), download: name });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60000);
  } catch (error) {
    toast(error.message, 5000);
  }
}

/* The buttons */

const press = (id, on) => $(id).setAttribute("aria-pressed", String(on));
const pressed = (id) => $(id).getAttribute("aria-pressed") === "true";

function mute(on = !pressed("mute")) {
  if (!page.microphone) return;
  if (deaf()) {
    // Who mutes now is not to be heard when a microphone is back. Nobody is unmuted before there is one.
    if (on) showMuted(true);
    return hearAgain();
  }
  page.microphone.getAudioTracks().forEach((track) => (track.enabled = !on));
  showMuted(on);
}

function showMuted(on) {
  press("mute", on);
  $("mute").querySelector("use").setAttribute("href", on || deaf() ? "#i-mic-off" : "#i-mic");
  $("deaf").hidden = !deaf();
  $("mute").title = on ? "Muted (M); hold Space to talk" : "Mute (M)";
}

async function camera() {
  if (page.camera) {
    stop(page.camera);
    page.camera = null;
  } else {
    const call = page.call;
    let picture;
    try {
      // It stays in this browser: a mirror, as in any video call.
      picture = await navigator.mediaDevices.getUserMedia({ video: { width: 480, height: 640, facingMode: "user" } });
    } catch {
      return toast("The camera cannot be used.");
    }
    if (call !== page.call || page.camera) return stop(picture); // the call is over, or the button was pressed twice
    page.camera = picture;
  }
  $("self").srcObject = page.camera;
  $("self").hidden = !page.camera;
  press("camera", Boolean(page.camera));
}

function subtitles() {
  press("cc", !pressed("cc"));
  document.body.classList.toggle("no-captions", !pressed("cc"));
}

async function record() {
  const { call, line } = page;
  if ($("record").hidden || !line?.id || line.asked) return;
  line.asked = true;
  try {
    const limit = AbortSignal.timeout(RECORDING);
    const answer = await (await line.ask("POST", "recording", { on: !pressed("record") }, limit)).json();
    if (call !== page.call) return;
    recording(answer.recording);
    const done = answer.finished ? "Recorded. You can save it after the call." : "The recording failed: the server's disk did not take it.";
    toast(answer.recording ? "Recording both voices and the picture." : done);
  } catch (error) {
    if (call === page.call) toast(error.message, 5000);
  } finally {
    line.asked = false;
  }
}

function recording(on) {
  press("record", on);
  $("recording").hidden = !on;
}

function panel() {
  $("panel").hidden = !$("panel").hidden;
  fill(page.seen, page.server);
}

let escaped = 0;
function escape() {
  if (!$("panel").hidden) return panel();
  if (!inCall()) return;
  if (Date.now() - escaped < 2500) return hangUp();
  escaped = Date.now();
  toast("Press Esc again to end the call.");
}

const KEYS = { m: () => mute(), v: camera, c: subtitles, r: record, l: panel, escape };
let held = false; // Space lets a muted user talk while it is held

addEventListener("keydown", (event) => {
  if ($("own").open || event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
  const key = event.key.toLowerCase();
  const elsewhere = event.target.tagName === "BUTTON" && event.target !== $("mute");
  if (key === " " && inCall() && pressed("mute") && !elsewhere) {
    event.preventDefault();
    held = true;
    mute(false);
  } else if (key === "l" || inCall() || key === "escape") {
    KEYS[key]?.();
  }
});
addEventListener("keyup", (event) => {
  if (event.key !== " " || !held) return;
  event.preventDefault(); // the button for it, if it has the focus, would be clicked
  letGo();
});
addEventListener("blur", letGo); // the key's release goes to another window then
function letGo() {
  if (!held) return;
  held = false;
  mute(true);
}

for (const [id, act] of Object.entries({ start, again, upload: openOwn, mute: () => mute(), camera, cc: subtitles, record, end: hangUp })) $(id).onclick = act;
function again() {
  if (state() === "ended") show("ready");
  else start();
}
$("file").onchange = previewOwn;
$("consent").onchange = allowOwn;
$("own-cancel").onclick = () => $("own").close();
$("own-form").onsubmit = useOwn;
$("face").onplaying = () => {
  document.body.classList.add("live");
  glow();
};
addEventListener("click", () => inCall() && $("face").play().catch(() => {}));
addEventListener("resize", glow);
navigator.mediaDevices?.addEventListener("devicechange", () => deaf() && hearAgain());
addEventListener("pagehide", () => page.line?.hangUp());

setInterval(() => {
  timer(page.began);
  if (document.body.classList.contains("live")) glow();
}, 1000);

setInterval(async () => {
  const line = page.line;
  if (!line?.id || line.over || line.pc?.connectionState !== "connected") return;
  page.seen = await measure(line.pc, page.seen);
  const { fps, dropped, av_offset } = page.seen;
  page.server = await line.report({ fps, dropped, av_offset });
  if (page.server && inCall()) recording(page.server.recording);
  if (!$("panel").hidden) fill(page.seen, page.server);
}, REPORT);

function sentence(text) {
  return text ? text[0].toUpperCase() + text.slice(1) + (/[.!?]$/.test(text) ? "" : ".") : "";
}

if (new URLSearchParams(location.search).has("debug")) panel();
addEventListener("hashchange", () => inCall() || location.reload()); // the whole link, in a tab that had half of it
load();
