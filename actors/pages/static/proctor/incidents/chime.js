/**
 * The sound of the alerts: two soft tones, made without a file.
 *
 * @typedef {import("../session/watched-plan.js").WatchedPlan} WatchedPlan
 */

/** The sound comes at most this often (seconds). */
const EVERY_SECONDS = 5;

/** Fires `change` when the browser begins or ceases to allow sound: it does so after a click or key on the page. */
export class Chime extends EventTarget {
  constructor() {
    super();
    /** @type {AudioContext | null} */ this._audio = null;
    this._last = -Infinity;
  }

  /** Whether the browser allows no sound yet. */
  get blocked() {
    return typeof AudioContext !== "undefined" && this._audio?.state !== "running";
  }

  /** Call it from a click or key: from then on the page may play sounds. */
  async allow() {
    if (typeof AudioContext === "undefined" || navigator.userActivation?.hasBeenActive === false) return;
    if (this._audio === null) {
      this._audio = new AudioContext();
      this._audio.addEventListener("statechange", () => this.dispatchEvent(new Event("change")));
    }
    if (this._audio.state !== "running") await this._audio.resume();
  }

  /** Let a person hear the sound; call it from a click or key. */
  async try() {
    await this.allow();
    this._play();
  }

  /**
   * Play the sound if examinees of the plans need it; call it each second. Alerts that cannot sound yet are kept until they
   * can, unless the alerts are off.
   * @param {WatchedPlan[]} plans @param {boolean} on whether the alerts are on
   */
  tick(plans, on) {
    if (on && (this.blocked || performance.now() - this._last < EVERY_SECONDS * 1000)) return;
    const due = plans.filter((plan) => plan.pendingAlerts.due(plan.now()));
    if (on && due.length > 0) this._play();
  }

  _play() {
    const audio = this._audio;
    if (audio?.state !== "running") return;
    this._last = performance.now();
    for (const [delay, pitch] of [[0, 660], [0.18, 880]]) {
      const [tone, volume] = [audio.createOscillator(), audio.createGain()];
      const at = audio.currentTime + delay;
      tone.frequency.value = pitch;
      volume.gain.setValueAtTime(0, at);
      volume.gain.linearRampToValueAtTime(0.2, at + 0.02);
      volume.gain.exponentialRampToValueAtTime(0.001, at + 0.35);
      tone.connect(volume).connect(audio.destination);
      tone.start(at);
      tone.stop(at + 0.4);
    }
  }
}
