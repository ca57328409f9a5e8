// How the page looks and speaks, in this browser.

import { chooseLanguage, chosenLanguage, LANGUAGES, t } from "../../i18n/index.js";
import { h, Part } from "../../parts/dom.js";
import { switchField } from "../../parts/form.js";
import { chooseTheme, theme, THEMES } from "../../store/theme.js";
import { chooseLetters, hasLetters } from "../keys.js";

const NAMES = { en: "English", vi: "Tiếng Việt" };

export class Page extends Part {
  build() {
    const language = chosenLanguage() ?? "";
    return [
      radios(
        t("settings.theme"),
        "theme",
        THEMES.map((each) => [each, t(`settings.theme.${each}`)]),
        theme.peek(),
        chooseTheme,
      ),
      radios(
        t("settings.language"),
        "language",
        [
          ["", t("settings.languageOfBrowser")],
          ...LANGUAGES.map((each) => /** @type {[string, string]} */ ([each, NAMES[each]])),
        ],
        language,
        (wanted) => {
          chooseLanguage(wanted || null);
          location.reload(); // all that is there was made in the other one
        },
      ),
      switchField(
        t("home.keys.letters"),
        {
          checked: () => hasLetters.value,
          onchange: (/** @type {any} */ { target }) => chooseLetters(target.checked),
        },
        t("home.keys.lettersSay"),
      ),
      h("p", null, h("small", null, t("settings.textSize"))),
    ];
  }
}

/**
 * @param {string} title
 * @param {string} name
 * @param {[value: string, text: string][]} options
 * @param {string} now
 * @param {(wanted: string) => void} choose
 */
function radios(title, name, options, now, choose) {
  return h(
    "fieldset",
    { class: "radios" },
    h("legend", null, title),
    options.map(([value, text]) =>
      h(
        "label",
        { class: "switch" },
        h("input", { type: "radio", name, value, checked: value === now, onchange: () => choose(value) }),
        h("span", { lang: name === "language" && value ? value : null }, text),
      ),
    ),
  );
}

customElements.define("sc-settings-appearance", Page);
