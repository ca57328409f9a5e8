export default {
  close: "Close",
  cancel: "Cancel",
  save: "Save",
  notLoaded: "That part of the page could not be loaded.",
  reload: "Reload the page",
  again: "Try again",
  loading: "Loading …",
  more: "Show more",
  barred:
    "This browser does not let the page keep anything, and your messages would be lost. Allow site data for this address, leave private browsing or make room on the disk; then reload the page.",
  copy: "Copy",
};
