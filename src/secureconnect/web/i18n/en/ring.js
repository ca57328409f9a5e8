export default {
  audio: "Voice call",
  video: "Video call",
  join: "Join the call",
  again: "Call back",
};
