// Stands in for WebRTC: the "server" answers at once, shows the still picture as its video, and says what a test tells it.
window.fake = { pcs: [] };

window.RTCPeerConnection = class {
  constructor() {
    this.connectionState = "new";
    this.localDescription = { type: "offer", sdp: "v=0" };
    window.fake.pcs.push(this);
  }
  addTransceiver(track) {
    if (track.kind) this.sent = track;
  }
  getSenders() {
    return [{ replaceTrack: async (track) => (this.sent = track) }];
  }
  createDataChannel() {
    this.channel = { readyState: "open", sent: [], send: (text) => this.channel.sent.push(text) };
    return this.channel;
  }
  async createOffer() {
    return this.localDescription;
  }
  async setLocalDescription() {}
  async setRemoteDescription() {
    if (window.fake.never) return;
    const canvas = Object.assign(document.createElement("canvas"), { width: 256, height: 256 });
    const paint = () => canvas.getContext("2d").drawImage(document.getElementById("still"), 0, 0, 256, 256);
    paint();
    setInterval(paint, 100);
    this.ontrack?.({ track: canvas.captureStream(10).getVideoTracks()[0], receiver: {} });
    this.become("connected");
    this.channel.onopen();
  }
  async getStats() {
    return new Map();
  }
  become(state) {
    this.connectionState = state;
    this.onconnectionstatechange?.();
  }
  close() {
    this.connectionState = "closed";
  }
};

window.fake.say = (type, data = {}) => {
  const pc = window.fake.pcs.at(-1);
  pc.channel.onmessage({ data: JSON.stringify({ label: "rtvi-ai", type, data }) });
};
