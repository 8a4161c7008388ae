/**
 * The viewfinder of the phone's page: opens the camera while it is on the screen, names why it cannot, and makes the picture
 * from the camera or from a file.
 */

import { t } from "../common/i18n.js";
import { announce } from "../common/parts.js";
import { problemKey } from "../common/picture-problems.js";
import { Camera, hindrance, troubleOf } from "./camera.js";
import { UnusablePicture, jpegOf } from "../mobile/picture.js";

/** The camera on the screen. Fires `change` when its view has changed. */
export class Finder extends EventTarget {
  /**
   * @param {HTMLVideoElement} video
   * @param {Promise<number>} limit the largest picture that the server takes, in bytes
   */
  constructor(video, limit) {
    super();
    this.camera = new Camera(video);
    /** Why there is no camera. @type {import("./camera.js").Trouble | null} */
    this.trouble = null;
    /** Why the last picture could not be used; a key of the texts. @type {string | null} */
    this.problem = null;
    this.opening = false;
    this._limit = limit;
    this._wanted = false;
    this.camera.addEventListener("ended", () => {
      if (this._wanted && document.visibilityState === "visible") void this.open();
    });
    document.addEventListener("visibilitychange", () => {
      if (document.visibilityState === "hidden") this.camera.stop(); // another app may need it, for example the phone's own camera
      else if (this._wanted && this.trouble === null && !this.camera.open) void this.open();
    });
  }

  /** Open the camera. */
  async begin() {
    this._wanted = true;
    this.trouble = this.problem = null;
    await this.open();
  }

  /** Close the camera. */
  end() {
    this._wanted = false;
    this.camera.stop();
  }

  /** Try to open the camera again. @param {() => Promise<unknown>} [how] */
  async open(how = () => this.camera.start()) {
    this.trouble = hindrance(window);
    if (this.trouble === null) {
      this.opening = true;
      this._changed();
      try {
        await how();
      } catch (error) {
        console.info("examwire: no camera:", String(error));
        this.trouble = troubleOf(error);
      }
      this.opening = false;
      if (!this._wanted) this.camera.stop();
    }
    this._changed();
    if (this.trouble !== null && this._wanted) announce(`${t(`trouble.${this.trouble}`)}. ${t(`trouble.${this.trouble}.do`)}`);
  }

  async turn() {
    await this.open(() => this.camera.turn());
  }

  /** What to tell the person, as a key of the texts; `null`: nothing. */
  get issue() {
    return this.problem ?? (this.trouble === null ? null : `trouble.${this.trouble}`);
  }

  /**
   * Make the picture to send from the camera or from a file. `null`: that failed, and `problem` says why.
   * @param {Blob} [file]
   * @returns {Promise<Blob | null>}
   */
  async picture(file) {
    this.problem = null;
    try {
      return (await jpegOf(file ?? this.camera.video, await this._limit)).blob;
    } catch (error) {
      if (!(error instanceof UnusablePicture)) throw error;
      console.info("examwire: the picture cannot be used:", error.problem, error.message);
      this.problem = file ? problemKey(error.problem) : "camera.notReady";
      this._changed();
      announce(file ? `${t(this.problem)} ${t(`${this.problem}.do`)}` : t(this.problem));
      return null;
    }
  }

  _changed() {
    this.dispatchEvent(new Event("change"));
  }
}
