// What is to be seen. The state of the page is one word, in body[data-state]; style.css does the rest.

export const $ = (id) => document.getElementById(id);

const WORDS = {
  loading: "Loading",
  ready: "Ready when you are",
  connecting: "Connecting",
  listening: "Listening",
  thinking: "Thinking",
  speaking: "Speaking",
  reconnecting: "Reconnecting",
  ended: "Call ended",
  busy: "All lines are busy",
  nomic: "No microphone",
  locked: "Not open to you",
};
const IN_CALL = ["connecting", "listening", "thinking", "speaking", "reconnecting"];
const NOTICES = ["ended", "busy", "nomic", "locked"];
const CAPTION_MS = 9000;
const ENDED = /[\p{Sentence_Terminal}…][^\p{L}\p{N}]*$/u; // a sentence, in any script

export const state = () => document.body.dataset.state;
export const inCall = () => IN_CALL.includes(state());

/** Goes to a state. title and text: of the notice in states that have one; again: the words on its button. */
export function show(next, { title = WORDS[next], text = "", again = "Try again" } = {}) {
  const before = state();
  document.body.dataset.state = next;
  $("status-text").textContent = WORDS[next];
  $("lobby").hidden = next !== "ready";
  $("controls").hidden = !IN_CALL.includes(next);
  $("notice").hidden = !NOTICES.includes(next);
  if (NOTICES.includes(next)) {
    $("notice-title").textContent = title;
    $("notice-text").textContent = text;
    $("again").textContent = again;
    $("again").hidden = next === "locked";
    captions.clear();
  }
  // Where the button that had the focus has gone, the next one in line takes it.
  const focused = document.activeElement;
  if (before !== next && before !== "loading" && (focused === document.body || !focused?.checkVisibility())) {
    const to = { ready: "start", connecting: "mute" }[next] ?? (NOTICES.includes(next) ? "again" : null);
    if (to) $(to).focus({ preventScroll: true });
  }
}

export function toast(text, ms = 2600) {
  $("toast").textContent = text;
  $("toast").hidden = false;
  clearTimeout(toast.timer);
  toast.timer = setTimeout(() => ($("toast").hidden = true), ms);
}

/** What both sides say. The character's text comes in segments, of which a part has been spoken already. Screen readers
 *  are given whole sentences, each once. */
export const captions = {
  segments: new Map(),
  heard: "",
  answer: "",
  read: 0, // letters of the answer that screen readers have been given
  them: null,
  you: null,

  character(name, data) {
    const spoken = data.spoken_progress?.accumulated_text ?? data.text;
    const later = data.spoken_progress?.remaining_text ?? "";
    this.segments.set(data.segment_id ?? data.text, { spoken, later });
    const all = [...this.segments.values()];
    this.them = this.line(this.them, "them", name);
    const text = this.them.querySelector(".text");
    const waiting = document.createElement("span");
    waiting.className = "later";
    // What is still to be said is shown of the sentence at hand only.
    waiting.textContent = all.find((segment) => segment.later)?.later ?? "";
    const said = all.map((segment) => segment.spoken).filter(Boolean);
    // Sentences come without the spaces between them, pieces of words with theirs.
    const between = said.some((part) => part !== part.trim()) ? "" : " ";
    this.answer = said.join(between);
    text.replaceChildren(this.answer, " ", waiting);
    if (ENDED.test(this.answer)) this.readRest();
    this.fade("them");
  },

  readRest() {
    this.readAloud(this.them, this.answer.slice(this.read));
    this.read = this.answer.length;
  },

  readAloud(line, text) {
    if (!text.trim()) return;
    $("said").append(Object.assign(document.createElement("p"), { textContent: `${line.dataset.who}: ${text.trim()}` }));
    if ($("said").childElementCount > 100) $("said").firstElementChild.remove();
  },

  /** final: all that was said; until then pieces of it come, one after the other. */
  user(text, final) {
    this.heard = final ? text : this.heard + text;
    this.you = this.line(this.you, "you", "You");
    this.you.querySelector(".text").textContent = this.heard.trim();
    if (final) this.readAloud(this.you, text);
    if (final) this.heard = "";
    this.fade("you");
  },

  /** The character was interrupted: what was not spoken is not shown. */
  cut() {
    for (const segment of this.segments.values()) segment.later = "";
    this.them?.querySelector(".later")?.remove();
    this.readRest();
  },

  newAnswer() {
    this.readRest();
    this.segments.clear();
    this.answer = "";
    this.read = 0;
  },

  clear() {
    this.newAnswer();
    this.heard = "";
    $("captions").replaceChildren();
    $("said").replaceChildren();
    this.them = this.you = null;
  },

  line(line, side, who) {
    if (line?.isConnected) return line;
    const made = document.createElement("p");
    made.className = side;
    made.dataset.who = who;
    const clip = made.appendChild(Object.assign(document.createElement("span"), { className: "clip" }));
    clip.appendChild(Object.assign(document.createElement("span"), { className: "text" }));
    return $("captions").appendChild(made);
  },

  fade(side) {
    const line = this[side];
    clearTimeout(line.timer);
    line.timer = setTimeout(() => line.remove(), CAPTION_MS);
  },
};

const EDGE = 0.06; // of the picture's width or height
const SHIFTS = [[1, 0], [-1, 0], [0, 1], [0, -1]]; // pixels; drawn over itself by these, a picture is blurred

/** The edges of the picture, drawn out and out of focus, fill what it leaves of the window. A few pixels: it costs nothing. */
export function glow() {
  const source = document.body.classList.contains("live") && $("face").videoWidth ? $("face") : $("still");
  const width = source.videoWidth || source.naturalWidth;
  const height = source.videoHeight || source.naturalHeight;
  if (!width) return;
  const canvas = $("glow").getContext("2d", { alpha: false });
  if (innerWidth > innerHeight) {
    canvas.drawImage(source, 0, 0, width * EDGE, height, 0, 0, 12, 24);
    canvas.drawImage(source, width * (1 - EDGE), 0, width * EDGE, height, 12, 0, 12, 24);
  } else {
    canvas.drawImage(source, 0, 0, width, height * EDGE, 0, 0, 24, 11);
    canvas.drawImage(source, 0, height * (1 - EDGE), width, height * EDGE, 0, 11, 24, 13);
  }
  canvas.globalAlpha = 0.5;
  for (const [x, y] of [...SHIFTS, ...SHIFTS]) canvas.drawImage($("glow"), x, y);
  canvas.globalAlpha = 1;
  rims();
}

/** What is outside the picture, drawn over its edges and fading: so it has none, and needs no mask. */
function rims() {
  const all = $("glow").getBoundingClientRect();
  const [across, down] = [$("glow").width / all.width, $("glow").height / all.height];
  for (const [last, rim] of document.querySelectorAll(".rim").entries()) {
    const { x, y, width, height } = rim.getBoundingClientRect();
    const canvas = rim.getContext("2d");
    const whole = [0, 0, rim.width, rim.height];
    canvas.globalCompositeOperation = "copy";
    canvas.drawImage($("glow"), (x - all.x) * across, (y - all.y) * down, width * across, height * down, ...whole);
    const ends = innerWidth > innerHeight ? [0, 0, rim.width, 0] : [0, 0, 0, rim.height];
    const fading = canvas.createLinearGradient(...ends);
    fading.addColorStop(last ? 0.95 : 0.05, "#000");
    fading.addColorStop(last ? 0 : 1, "transparent");
    canvas.globalCompositeOperation = "destination-in";
    canvas.fillStyle = fading;
    canvas.fillRect(...whole);
  }
}

export function timer(began) {
  $("timer").hidden = !began;
  if (!began) return;
  const seconds = Math.floor((Date.now() - began) / 1000);
  $("timer").textContent = `${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, "0")}`;
}
