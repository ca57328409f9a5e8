// Somebody calls.

import { avatar } from "../../parts/avatar.js";
import { h, Part } from "../../parts/dom.js";
import { t } from "../../i18n/index.js";
import { onEnd } from "../../store/signal.js";
import { icon } from "./icons.js";
import { modal } from "./modal.js";
import { isGroup, nameOf, pictureOf, placeOf } from "./names.js";
import { ring } from "./tones.js";

/** @import { Calls } from "../../call/calls.js" */
/** @import { CallShape } from "../../call/types.js" */

export class Incoming extends Part {
  calls = /** @type {Calls} */ (/** @type {unknown} */ (null)); // given, as are these two
  record = /** @type {CallShape} */ (/** @type {unknown} */ (null));
  answer = (/** @type {boolean} */ _withCamera) => {};

  build() {
    const { calls, record } = this;
    const name = nameOf(record.initiated_by);
    const title = t("call.incoming", { name });
    onEnd(ring());
    announce(title);
    const isVideo = record.call_type === "video";
    const choices = [
      h(
        "button",
        { type: "button", class: "danger", onclick: () => calls.decline(record) },
        icon("leave"),
        t("call.decline"),
      ),
      h(
        "button",
        { type: "button", class: isVideo ? "" : "primary", onclick: () => this.answer(false) },
        icon("phone"),
        t(isVideo ? "call.answerWithout" : "call.answer"),
      ),
    ];
    if (isVideo) {
      choices.push(
        h(
          "button",
          { type: "button", class: "primary", onclick: () => this.answer(true) },
          icon("camera"),
          t("call.answer"),
        ),
      );
    }
    return modal(
      { label: title, class: "call-incoming", close: () => calls.silence() },
      avatar(() => pictureOf(record.initiated_by)),
      h("h2", { tabindex: "-1", autofocus: true }, title), // no key that was meant for something else answers,
      h("p", null, t(isVideo ? "call.video" : "call.audio")),
      isGroup(record.conversation_id) &&
        h("p", null, t("call.inGroup", { name: placeOf(record.conversation_id) })),
      h("div", { class: "call-row" }, ...choices),
      h("small", null, t("call.escSilences")),
    );
  }
}

/** In the title of the page, for those who look at another. @param {string} title */
function announce(title) {
  const before = document.title;
  const ours = `☎ ${title}`;
  document.title = ours;
  onEnd(() => {
    if (document.title === ours) document.title = before; // else the page has another one by now
  });
}

customElements.define("sc-call-incoming", Incoming);
