export default {
  close: "Đóng",
  cancel: "Hủy",
  save: "Lưu",
  notLoaded: "Không tải được phần này của trang.",
  reload: "Tải lại trang",
  again: "Thử lại",
  loading: "Đang tải …",
  more: "Xem thêm",
  copy: "Sao chép",
};
