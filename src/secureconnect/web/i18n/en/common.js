export default {
  close: "Close",
  cancel: "Cancel",
  save: "Save",
};
