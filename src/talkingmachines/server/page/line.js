// The line to the server: one call over WebRTC, found again when it was lost.
// Signalling is pipecat's: an offer is posted, later addresses are patched in, a restart says which connection it replaces.

const LOST_AFTER = 3000; // ms without a connection before it is made anew
const GIVE_UP = 20000; // ms; the server keeps a lost caller's place for 15 s
const PING = 1000; // ms; without pings for 3 s the server takes the line for dead
const NO_WAY = "No connection could be made: a network on the way does not let calls through. The server may need a TURN server.";
const BUFFER = 60; // ms that sound and pictures are held back, both alike from the start: left alone they take seconds to meet
const ANSWER = 7000; // ms; the server asks its STUN and TURN servers for up to 5 s before it answers
const GOODBYE = 15000; // ms; the server takes up to 10 s to clean up
const PLACE = 10000; // ms; the server gives a place, or says that there is none, at once
const FAREWELL = 4000; // ms; who has waited for GIVE_UP already is shown the end then, whatever the server says later
const STUCK = 3500; // ms without an answer in which a new connection counts as failed

export class ServerError extends Error {
  /** finished: the names of the recordings of a call that has ended. */
  constructor(status, { detail, finished }) {
    super(detail);
    this.status = status;
    this.finished = finished ?? [];
  }
}

/** Asks the server; the token comes from the link. Raises ServerError, with status 0 when it cannot be reached. */
export async function ask(method, path, body, token, signal) {
  const headers = token ? { Authorization: `Bearer ${token}` } : {};
  const binary = body instanceof Blob;
  if (body && !binary) headers["Content-Type"] = "application/json";
  let response;
  try {
    response = await fetch(path, { method, headers, body: body && !binary ? JSON.stringify(body) : body, keepalive: path.endsWith("/end"), signal });
  } catch {
    throw new ServerError(0, { detail: "The server cannot be reached." });
  }
  if (response.ok) return response.status === 204 ? null : response;
  const said = await response.json().catch(() => ({ detail: response.statusText }));
  throw new ServerError(response.status, said);
}

/** Events: stream (MediaStream), message (RTVI), connected, lost, ended ({message, finished}: the names of the
 *  recordings, or a promise of them). */
export class Line extends EventTarget {
  constructor(token, iceServers) {
    super();
    this.token = token;
    this.iceServers = iceServers;
    this.stream = new MediaStream();
    this.over = false;
  }

  async start(character, microphone) {
    this.microphone = microphone;
    this.reserved = this.reserve(character);
    await this.reserved;
    if (!this.over) await this.connect();
  }

  async reserve(character) {
    const answer = await ask("POST", "/api/calls", { character }, this.token, AbortSignal.timeout(PLACE));
    this.id = (await answer.json()).id;
  }

  /** Another microphone. */
  hearBy(microphone) {
    this.microphone = microphone;
    // A connection that has been closed has no senders.
    this.pc?.getSenders()[0]?.replaceTrack(microphone.getAudioTracks()[0]).catch(() => {});
  }

  ask(method, path, body, signal) {
    return ask(method, `/api/calls/${this.id}/${path}`, body, this.token, signal);
  }

  /** A new connection; in place of the one before, if there was one. */
  async connect() {
    const pc = new RTCPeerConnection({ iceServers: this.iceServers });
    // The old one is closed when the server knows of the new: a goodbye on it would end the call.
    const old = this.pc;
    this.pc = pc;
    const found = [];
    let answered = false;
    const send = async () => {
      if (!answered || !found.length) return;
      await this.ask("PATCH", "offer", { candidates: found.splice(0) }).catch(() => {});
    };
    pc.onicecandidate = ({ candidate }) => {
      if (!candidate?.candidate) return;
      found.push({ candidate: candidate.candidate, sdp_mid: candidate.sdpMid, sdp_mline_index: candidate.sdpMLineIndex });
      send();
    };
    pc.onconnectionstatechange = () => this.changed(pc);
    pc.ontrack = ({ track, receiver }) => {
      receiver.jitterBufferTarget = BUFFER;
      for (const old of this.stream.getTracks()) if (old.kind === track.kind) this.stream.removeTrack(old);
      this.stream.addTrack(track);
      this.tell("stream", this.stream);
    };
    // In this order: the server's first transceiver is for sound, its second for pictures.
    pc.addTransceiver(this.microphone.getAudioTracks()[0], { direction: "sendrecv", streams: [this.microphone] });
    pc.addTransceiver("video", { direction: "recvonly" });
    this.talk(pc.createDataChannel("rtvi", { ordered: true }));
    await pc.setLocalDescription(await pc.createOffer());
    const { sdp, type } = pc.localDescription;
    const restart = this.pcId ? { pc_id: this.pcId, restart_pc: true } : {};
    let answer;
    try {
      // Who was connected before is waiting: better another try than a long one.
      const signal = this.pcId ? AbortSignal.timeout(ANSWER) : undefined;
      answer = await (await this.ask("POST", "offer", { sdp, type, ...restart }, signal)).json();
    } finally {
      this.close(answer && !this.over ? old : pc);
      if (!answer) {
        this.pc = old;
        this.hearBy(this.microphone); // it may be another one by now
      }
    }
    if (this.over) return;
    this.pcId = answer.pc_id;
    await pc.setRemoteDescription({ sdp: answer.sdp, type: answer.type });
    answered = true;
    await send();
  }

  /** The data channel: RTVI messages, and pings by which the server knows that we are there. */
  talk(channel) {
    this.channel = channel;
    channel.onopen = () => {
      const about = { library: "talkingmachines" };
      channel.send(JSON.stringify({ label: "rtvi-ai", type: "client-ready", id: "1", data: { version: "2.0.0", about } }));
      const ping = () => channel.readyState === "open" && channel.send(`ping: ${Date.now()}`);
      ping();
      clearInterval(this.pings);
      this.pings = setInterval(ping, PING);
    };
    channel.onmessage = ({ data }) => {
      if (this.over) return;
      let message;
      try {
        message = JSON.parse(data);
      } catch {
        return;
      }
      if (message.type === "signalling" && message.message?.type === "peerLeft") this.find();
      else if (message.label === "rtvi-ai") this.tell("message", message);
    };
  }

  changed(pc) {
    if (pc !== this.pc || this.over) return;
    const state = pc.connectionState;
    if (state === "connected") {
      clearTimeout(this.waiting);
      this.waiting = this.lostAt = null;
      this.was = true;
      this.tell("connected");
    } else if (state === "failed" || state === "closed") {
      this.find();
    } else if (state === "disconnected" && !this.waiting) {
      this.tell("lost");
      this.waiting = setTimeout(() => this.find(), LOST_AFTER);
    }
  }

  /** Comes back into the call, again and again, until it is there or over. */
  async find() {
    if (this.over || this.finding) return;
    this.finding = true;
    this.lostAt ??= Date.now();
    if (this.was) this.tell("lost");
    while (!this.over && this.pc.connectionState !== "connected") {
      if (Date.now() - this.lostAt > GIVE_UP) {
        await this.giveUp(this.was ? "The connection was lost." : NO_WAY);
        break;
      }
      let since = Date.now();
      try {
        await this.connect();
        since = Date.now();
      } catch (error) {
        if (error.status === 410) this.finish(error);
        else if ([401, 404, 409].includes(error.status)) await this.giveUp(error.message);
      }
      while (!this.over && Date.now() - since < STUCK && this.pc.connectionState !== "connected") {
        await new Promise((done) => setTimeout(done, 100));
      }
    }
    this.finding = false;
    // The old one may have come back while a new one was tried, when nobody listened to it.
    if (!this.over) this.changed(this.pc);
  }

  /** Reports what is received; the answer is what the server knows. */
  async report(figures) {
    try {
      return await (await this.ask("POST", "report", figures)).json();
    } catch (error) {
      if (error.status === 410 || error.status === 404) this.finish(error);
      return null;
    }
  }

  async hangUp() {
    if (this.over) return [];
    this.over = true;
    if (!this.id) await this.reserved?.catch(() => {}); // a place that is given only now has to be given back
    const finished = this.id ? await this.end() : [];
    this.drop();
    return finished;
  }

  /** Tells the server that it is over, for the place to be free. What has been recorded, also where the server was first. */
  async end() {
    const limit = AbortSignal.timeout(GOODBYE);
    const { finished } = await this.ask("POST", "end", {}, limit).then((response) => response.json()).catch((error) => error);
    return finished ?? [];
  }

  async giveUp(message) {
    const finished = this.end();
    await Promise.race([finished, new Promise((done) => setTimeout(done, FAREWELL))]);
    this.finish({ message, finished });
  }

  finish({ message, finished = [] }) {
    if (this.over) return;
    this.over = true;
    this.drop();
    this.tell("ended", { message, finished });
  }

  drop() {
    clearInterval(this.pings);
    clearTimeout(this.waiting);
    this.waiting = null;
    this.close(this.pc);
  }

  close(pc) {
    if (!pc) return;
    pc.onconnectionstatechange = pc.ontrack = pc.onicecandidate = null;
    pc.close();
  }

  tell(name, detail) {
    this.dispatchEvent(new CustomEvent(name, { detail }));
  }
}
