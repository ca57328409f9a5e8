export default {
  close: "Đóng",
  cancel: "Hủy",
  save: "Lưu",
  notLoaded: "Không tải được phần này của trang.",
  reload: "Tải lại trang",
};
