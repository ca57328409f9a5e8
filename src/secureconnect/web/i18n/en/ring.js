export default {
  audio: "Voice call",
  video: "Video call",
  join: "Join the call",
  again: "Call back",
  recording: "Recording of the call",
};
