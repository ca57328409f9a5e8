// How others see one.

import { app } from "../../app.js";
import { t } from "../../i18n/index.js";
import { avatar } from "../../parts/avatar.js";
import { h, Part } from "../../parts/dom.js";
import { field, form, USERNAME } from "../../parts/form.js";
import { toast } from "../../parts/toast.js";
import { told } from "./page.js";

/** @typedef {import("../../store/types.js").User} User */

export class Page extends Part {
  build() {
    const { me } = app.state;
    const face = () => ({
      name: me.value?.display_name ?? "",
      id: me.value?.user_id ?? "",
      url: me.value?.avatar_url,
    });
    return [
      h(
        "div",
        { class: "person" },
        avatar(face),
        h(
          "span",
          null,
          h("strong", null, () => me.value?.display_name ?? ""),
          h("small", null, () => `@${me.value?.username ?? ""}`),
        ),
      ),
      told(() => app.learnMe(), chosen),
    ];
  }
}

/** @param {User} user */
function chosen(user) {
  const run = async (/** @type {any} */ { display_name, username, avatar_url }) => {
    const body = { display_name, username, avatar_url: avatar_url.trim() || null };
    app.keepMe(await app.client.ask("PATCH", "/v1/users/me", { body }));
    toast(t("settings.saved"));
  };
  return form(
    { action: t("common.save"), run },
    field(
      t("settings.displayName"),
      {
        name: "display_name",
        value: user.display_name,
        required: true,
        maxlength: 100,
        autocomplete: "name",
      },
      t("settings.displayNameHint"),
    ),
    field(
      t("settings.username"),
      { name: "username", value: user.username, autocomplete: "username", ...USERNAME },
      t("settings.usernameHint"),
    ),
    field(
      t("settings.picture"),
      {
        name: "avatar_url",
        value: user.avatar_url ?? "",
        maxlength: 2048,
        inputmode: "url",
        autocomplete: "off",
      },
      t("settings.pictureHint"),
    ),
  );
}

customElements.define("sc-settings-profile", Page);
