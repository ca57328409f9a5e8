export default {
  show: "Show what you type",
  code: "Code from your authenticator app",
  codeHint:
    "Or one of your recovery codes. If you have neither any more, an administrator of this server can let you in again.",
  missing: "Fill this in.",
  tooShort: { one: "At least {count} character.", other: "At least {count} characters." },
  notAnAddress: "This is not an e-mail address.",
  notAUsername: "3 to 50 letters without accents, digits, dots, dashes or underscores.",
  passwordHint: "At least 8 characters. Several words in a row are easy to remember and hard to guess.",
  passwordFair: "Enough. A longer one is harder to guess.",
  passwordGood: "Good.",
  passwordStrong: "Very good.",
  wrongPassword: "The password is wrong.",
};
