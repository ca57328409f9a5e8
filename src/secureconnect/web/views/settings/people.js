// Friends, requests that wait, and whom one has blocked.

import { app } from "../../app.js";
import { refused, t } from "../../i18n/index.js";
import { avatar } from "../../parts/avatar.js";
import { each, h, Part, when } from "../../parts/dom.js";
import { field, form } from "../../parts/form.js";
import { footOf, Paged } from "../../parts/paged.js";
import { toast } from "../../parts/toast.js";
import { section } from "./page.js";

/** @typedef {import("../../store/types.js").Person} Person */
/** @typedef {{ text: string, method: string, path: (id: string) => string }} Deed what can be done about somebody */

const PAGE = 50;
const FRIENDS = "/v1/users/me/friends";

/** @param {string} state */
function friends(state) {
  return new Paged(async (cursor) => {
    const query = { state, limit: PAGE, cursor };
    const answer = await app.client.ask("GET", FRIENDS, { query });
    return { items: /** @type {Person[]} */ (answer.friends), next_cursor: answer.next_cursor };
  });
}

export class Page extends Part {
  incoming = friends("incoming");
  accepted = friends("accepted");
  outgoing = friends("outgoing");
  /** @type {Paged<Person>} */
  blocked = new Paged(async (cursor) => {
    const { users, next_cursor } = await app.client.ask("GET", "/v1/users/me/blocked", {
      query: { limit: PAGE, cursor },
    });
    return { items: users, next_cursor };
  });

  build() {
    this.load();
    const remove = (/** @type {string} */ text) => ({ text, method: "DELETE", path: friend });
    return [
      when(
        () => this.incoming.items.value.length > 0,
        () =>
          section(
            t("settings.incoming"),
            this.list(this.incoming, "", [
              { text: t("settings.accept"), method: "POST", path: (id) => `${friend(id)}/accept` },
              { text: t("settings.reject"), method: "DELETE", path: (id) => `${friend(id)}/reject` },
            ]),
          ),
      ),
      section(
        t("settings.friends"),
        this.list(this.accepted, t("settings.noFriends"), [remove(t("settings.removeFriend"))]),
        this.askForm(),
      ),
      when(
        () => this.outgoing.items.value.length > 0,
        () => section(t("settings.outgoing"), this.list(this.outgoing, "", [remove(t("settings.takeBack"))])),
      ),
      section(
        t("settings.blocked"),
        h("p", null, h("small", null, t("settings.blockedHint"))),
        this.list(this.blocked, t("settings.noBlocked"), [
          { text: t("settings.unblock"), method: "DELETE", path: (id) => `/v1/users/${id}/block` },
        ]),
      ),
    ];
  }

  load() {
    for (const paged of [this.incoming, this.accepted, this.outgoing, this.blocked]) void paged.load();
  }

  askForm() {
    const run = async (/** @type {any} */ { username }, /** @type {HTMLFormElement} */ element) => {
      const wanted = username.trim().replace(/^@/, "").toLowerCase();
      const { users } = await app.client.ask("GET", "/v1/users/search", { query: { q: wanted } });
      const found = users.find((/** @type {Person} */ each) => each.username.toLowerCase() === wanted);
      if (!found) throw { code: "VALIDATION", details: { field: "username" } };
      const { state } = await app.client.ask("POST", `/v1/users/${found.user_id}/friend`);
      element.reset();
      toast(state === "accepted" ? t("settings.nowFriends") : t("settings.friendAsked"));
      this.load();
    };
    return form(
      { action: t("settings.askFriend"), run, refusals: { VALIDATION: () => t("settings.nobodyNamed") } },
      field(t("settings.username"), {
        name: "username",
        required: true,
        autocapitalize: "off",
        autocomplete: "off",
      }),
    );
  }

  /**
   * @param {Paged<Person>} paged
   * @param {string} nothing what is said when there is nobody
   * @param {Deed[]} deeds
   */
  list(paged, nothing, deeds) {
    const row = (/** @type {() => Person} */ person) =>
      h(
        "li",
        { class: "row" },
        avatar(() => ({ name: person().display_name, id: person().user_id, url: person().avatar_url })),
        h(
          "div",
          { class: "row-text" },
          h("strong", null, () => person().display_name),
          h("small", null, () => `@${person().username}`),
        ),
        h(
          "div",
          { class: "row-actions" },
          deeds.map((deed) =>
            h("button", { type: "button", onclick: () => this.act(deed, person()) }, deed.text),
          ),
        ),
      );
    return [
      h(
        "ul",
        { class: "rows" },
        each(
          () => paged.items.value,
          (person) => person.user_id,
          row,
        ),
      ),
      footOf(paged, nothing),
    ];
  }

  /**
   * @param {Deed} deed
   * @param {Person} person
   */
  async act({ method, path }, person) {
    try {
      await app.client.ask(method, path(person.user_id));
      await app.mine.blocks.read();
    } catch (error) {
      toast(refused(error));
    }
    this.load();
  }
}

/** @param {string} id */
function friend(id) {
  return `${FRIENDS}/${id}`;
}

customElements.define("sc-settings-people", Page);
