// How fast it is: what this browser receives, and what the server says of itself.

import { $ } from "/page/view.js";

const ms = (seconds) => (seconds == null ? "–" : `${Math.round(seconds * 1000)} ms`);
const whole = (value) => (value == null ? "–" : String(Math.round(value)));

/** What is received now: fps, dropped, and av_offset in seconds (positive: the sound leads). */
export async function measure(pc, before) {
  const seen = { fps: null, dropped: null, av_offset: null, decoded: 0, at: performance.now() };
  const playing = {};
  for (const stat of (await pc.getStats()).values()) {
    if (stat.type !== "inbound-rtp") continue;
    playing[stat.kind] = stat.estimatedPlayoutTimestamp;
    if (stat.kind !== "video") continue;
    seen.decoded = stat.framesDecoded ?? 0;
    seen.dropped = stat.framesDropped ?? 0;
    if (before && seen.decoded >= before.decoded) seen.fps = ((seen.decoded - before.decoded) * 1000) / (seen.at - before.at);
  }
  if (playing.audio && playing.video) seen.av_offset = (playing.audio - playing.video) / 1000;
  return seen;
}

export function fill(seen, server) {
  const rows = [
    ["First frame", ms(server?.first_frame)],
    ["Turn, last", ms(server?.turn)],
    ["Turn, p95", ms(server?.turn_p95)],
    ["Chunk, median", ms(server?.chunk)],
    ["Chunk, p95", ms(server?.chunk_p95)],
    ["A/V offset, sent", ms(server?.av_offset)],
    ["A/V offset, here", ms(seen?.av_offset)],
    ["Frames/s, sent", whole(server?.fps)],
    ["Frames/s, here", whole(seen?.fps)],
    ["Late, skipped", server ? `${server.late}, ${server.skipped}` : "–"],
    ["Dropped here", whole(seen?.dropped)],
  ];
  $("figures").replaceChildren(
    ...rows.map(([name, value]) => {
      const row = document.createElement("tr");
      const head = Object.assign(document.createElement("th"), { scope: "row", textContent: name });
      row.append(head, Object.assign(document.createElement("td"), { textContent: value }));
      return row;
    }),
  );
}
