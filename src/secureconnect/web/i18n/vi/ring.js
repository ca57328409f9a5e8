export default {
  audio: "Gọi thoại",
  video: "Gọi video",
  join: "Tham gia cuộc gọi",
  again: "Gọi lại",
  recording: "Bản ghi cuộc gọi",
};
