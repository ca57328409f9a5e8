export default {
  close: "Close",
  cancel: "Cancel",
  save: "Save",
  notLoaded: "That part of the page could not be loaded.",
  reload: "Reload the page",
  again: "Try again",
  loading: "Loading …",
  more: "Show more",
  copy: "Copy",
};
