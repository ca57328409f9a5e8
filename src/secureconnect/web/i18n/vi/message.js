export default {
  forward: "Chuyển tiếp",
  where: "Đến đâu",
  forwarded: "Đã chuyển tiếp đến {count} cuộc trò chuyện.",
  history: "Các bản trước",
  readers: "Ai đã đọc",
  haveRead: "Đã đọc",
  haveNotRead: "Chưa đọc",
};
