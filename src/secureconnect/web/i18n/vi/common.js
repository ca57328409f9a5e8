export default {
  close: "Đóng",
  cancel: "Hủy",
  save: "Lưu",
};
