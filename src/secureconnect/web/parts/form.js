// What forms are made of: labelled fields that say themselves what is wrong with them, and forms that run one thing at a
// time, put what was refused where it belongs, and take the focus there.

import { refused, t } from "../i18n/index.js";
import { signal } from "../store/signal.js";
import { focus, h, when } from "./dom.js";
import { icon } from "./icons.js";

/**
 * @typedef {import("./dom.js").Child} Child
 * @typedef {import("./dom.js").Props} Props
 * @typedef {HTMLInputElement | HTMLSelectElement | HTMLTextAreaElement} Input
 * @typedef {{ code?: string, details?: Record<string, any>, retryAfterS?: number | null }} Refused
 * @typedef {{ [name: string]: string }} Given what stands in the fields, by name
 */

/** The field that a refusal is about, where the server does not name it. @type {Record<string, string>} */
const FIELD_OF = {
  INVALID_CREDENTIALS: "password",
  TOTP_INVALID: "totp_code",
  TOTP_REQUIRED: "totp_code",
  USERNAME_TAKEN: "username",
  EMAIL_TAKEN: "email",
  INVITE_REQUIRED: "invite_code",
  INVITE_INVALID: "invite_code",
};

/** Of the input for a username: what the server takes. */
export const USERNAME = {
  required: true,
  minlength: 3,
  maxlength: 50,
  pattern: "[A-Za-z0-9_][A-Za-z0-9_.\\-]*",
  autocapitalize: "off",
  spellcheck: "false",
};

let fields = 0;

/**
 * A labelled input, with a hint under it if there is one.
 * @param {string} label
 * @param {Props} props of the input
 * @param {Child} [hint]
 */
export function field(label, props, hint) {
  return around(label, hint, (ids) => h("input", { ...ids, ...props }));
}

/**
 * The same for a password: what is typed can be shown.
 * @param {string} label
 * @param {Props} props
 * @param {Child} [hint]
 */
export function passwordField(label, props, hint) {
  const isShown = signal(false);
  return around(label, hint, (ids) =>
    h(
      "span",
      { class: "with-button" },
      h("input", {
        type: () => (isShown.value ? "text" : "password"),
        autocapitalize: "off",
        spellcheck: "false",
        required: true,
        ...ids,
        ...props,
      }),
      h(
        "button",
        {
          type: "button",
          class: "icon-button",
          "aria-label": t("form.show"),
          "aria-pressed": () => String(isShown.value),
          onclick: () => (isShown.value = !isShown.peek()),
        },
        icon("eye"),
      ),
    ),
  );
}

/**
 * Whose password a form is about, for password managers; nobody sees it.
 * @param {string} [username]
 */
export function whose(username = "") {
  return h("input", {
    type: "text",
    autocomplete: "username",
    value: username,
    readonly: true,
    hidden: true,
  });
}

/**
 * One of several.
 * @param {string} label
 * @param {Props} props of the select; `value` is the chosen one
 * @param {[value: string, text: string][]} options
 * @param {Child} [hint]
 */
export function choiceField(label, { value, ...props }, options, hint) {
  return around(label, hint, (ids) => {
    const made = options.map(([each, text]) => h("option", { value: each }, text));
    const select = h("select", { ...ids, ...props }, ...made);
    select.value = value;
    return select;
  });
}

/**
 * Something that is so or not.
 * @param {string} label
 * @param {Props} props of the checkbox
 * @param {Child} [hint]
 */
export function switchField(label, props, hint) {
  return h(
    "label",
    { class: "switch" },
    h("input", { type: "checkbox", ...props }),
    h("span", null, label, hint ? h("small", null, hint) : null),
  );
}

/**
 * @param {string} label
 * @param {Child} hint
 * @param {(ids: Props) => HTMLElement} make
 */
function around(label, hint, make) {
  fields += 1;
  const id = `field-${fields}`;
  const described = hint ? `${id}-hint ${id}-wrong` : `${id}-wrong`;
  return h(
    "div",
    { class: "field" },
    h("label", { for: id }, label),
    make({ id, "aria-describedby": described }),
    hint ? h("small", { id: `${id}-hint` }, hint) : null,
    h("p", { id: `${id}-wrong`, class: "wrong", role: "alert", hidden: true }),
  );
}

/**
 * The button of a form; while it is busy it cannot be pressed again.
 * @param {string} text
 * @param {{ value: boolean }} isBusy
 * @param {string} [kind]
 */
export function submit(text, isBusy, kind = "primary") {
  return h(
    "button",
    { class: kind, disabled: () => isBusy.value, "aria-busy": () => (isBusy.value ? "true" : null) },
    text,
  );
}

/**
 * A form. Where the account has a second factor the server says so, and the form asks for a code of it.
 * @param {object} how
 * @param {string} how.action the word on its button
 * @param {(given: Given, form: HTMLFormElement) => Promise<unknown>} how.run what it throws is said
 * @param {boolean} [how.isDanger]
 * @param {boolean} [how.asksCode] it is known that there is a second factor
 * @param {Record<string, (error: Refused) => string>} [how.refusals] other words for a code than everywhere
 * @param {Child} [how.beside] beside the button
 * @param {...Child} children
 */
export function form(
  { action, run, isDanger = false, asksCode = false, refusals = {}, beside = null },
  ...children
) {
  const isBusy = signal(false);
  const needsCode = signal(asksCode);
  const problem = signal("");

  /** @param {SubmitEvent} event */
  async function onsubmit(event) {
    event.preventDefault();
    const element = /** @type {HTMLFormElement} */ (event.currentTarget);
    problem.value = "";
    if (isBusy.peek() || !isRight(element)) return;
    isBusy.value = true;
    try {
      await run(givenIn(element), element);
      needsCode.value = asksCode;
    } catch (error) {
      isBusy.value = false; // before the focus goes to a field
      say(element, /** @type {Refused} */ (error));
    } finally {
      isBusy.value = false;
    }
  }

  /**
   * @param {HTMLFormElement} element
   * @param {Refused} error
   */
  function say(element, error) {
    if (error.code === "TOTP_REQUIRED" && !needsCode.peek()) {
      needsCode.value = true;
      return;
    }
    const text = refusals[error.code ?? ""]?.(error) ?? wordsFor(element, error);
    const name = error.code === "VALIDATION" ? error.details?.field : FIELD_OF[error.code ?? ""];
    const input = inputsOf(element).find((each) => each.name === name);
    if (input) {
      mark(input, text);
      input.focus();
    } else problem.value = text;
  }

  return h(
    "form",
    { novalidate: true, onsubmit, oninput: unmark },
    ...children,
    when(
      () => needsCode.value,
      () => codeField(!asksCode),
    ),
    h("p", { class: "problem", role: "alert", hidden: () => !problem.value }, () => problem.value),
    h("footer", { class: "form-foot" }, submit(action, isBusy, isDanger ? "danger" : "primary"), beside),
  );
}

/** @param {boolean} isNext it appears because it is missing: one goes on there */
function codeField(isNext) {
  const props = {
    name: "totp_code",
    autocomplete: "one-time-code",
    required: true,
    maxlength: 32,
    ref: isNext ? focus : () => {},
  };
  return field(t("form.code"), props, t("form.codeHint"));
}

/**
 * @param {HTMLFormElement} element
 * @param {Refused} error
 */
function wordsFor(element, error) {
  const asksName = element.elements.namedItem("name") !== null;
  if (error.code === "INVALID_CREDENTIALS" && !asksName) return t("form.wrongPassword"); // it is known who one is
  return refused(error);
}

/** @param {HTMLFormElement} element */
function givenIn(element) {
  const given = /** @type {Given} */ (Object.fromEntries(new FormData(element)));
  if (given.totp_code) given.totp_code = given.totp_code.replaceAll(/\s/g, "");
  return given;
}

/** @param {HTMLFormElement} element */
function inputsOf(element) {
  return /** @type {Input[]} */ (
    [...element.elements].filter((each) => each.matches("input, select, textarea"))
  );
}

/**
 * Whether all fields hold what they ask for. What does not says so, and the first of them has the focus.
 * @param {HTMLFormElement} element
 */
function isRight(element) {
  const wrong = inputsOf(element).filter((input) => {
    const text = wrongWith(input);
    mark(input, text);
    return text !== "";
  });
  wrong[0]?.focus();
  return wrong.length === 0;
}

/**
 * In the words of the page, not of the browser; "": nothing.
 * @param {Input} input
 */
function wrongWith(input) {
  const { value, validity } = input;
  const least = "minLength" in input ? input.minLength : -1;
  if (validity.valueMissing || (input.required && !value.trim())) return t("form.missing");
  if (value && least > 0 && value.length < least) return t("form.tooShort", { count: least });
  if (validity.typeMismatch) return t("form.notAnAddress");
  if (validity.patternMismatch) return t("form.notAUsername");
  return validity.valid ? "" : t("error.VALIDATION");
}

/**
 * @param {Input} input
 * @param {string} text what is wrong with it; "": nothing
 */
function mark(input, text) {
  const place = input.closest(".field")?.querySelector(".wrong");
  if (!(place instanceof HTMLElement)) return;
  place.textContent = text;
  place.hidden = !text;
  if (text) input.setAttribute("aria-invalid", "true");
  else input.removeAttribute("aria-invalid");
}

/** @param {Event} event */
function unmark({ target }) {
  if (target instanceof HTMLInputElement && target.hasAttribute("aria-invalid")) mark(target, "");
}

const LEAST = 8; // characters, as the server asks for
const FAIR = 12;
const STRONG = 16;

/**
 * A field for a password one chooses, which says how good its length is. Length is what counts: no rule asks for signs.
 * @param {string} label
 * @param {string} name
 */
export function newPasswordField(label, name) {
  const length = signal(0);
  const strength = () =>
    length.value >= STRONG ? 3 : length.value >= FAIR ? 2 : length.value >= LEAST ? 1 : 0;
  const words = [
    t("form.passwordHint"),
    t("form.passwordFair"),
    t("form.passwordGood"),
    t("form.passwordStrong"),
  ];
  const hint = h(
    "span",
    { class: "strength" },
    h(
      "span",
      { class: "strength-bar", "aria-hidden": "true", "data-strength": () => strength() },
      h("i"),
      h("i"),
      h("i"),
    ),
    () => words[strength()],
  );
  const oninput = (/** @type {any} */ { target }) => (length.value = [...target.value].length);
  const props = { name, autocomplete: "new-password", minlength: LEAST, maxlength: 1024, oninput };
  return passwordField(label, props, hint);
}
