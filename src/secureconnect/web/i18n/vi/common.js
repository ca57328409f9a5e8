export default {
  close: "Đóng",
  cancel: "Hủy",
  save: "Lưu",
  notLoaded: "Không tải được phần này của trang.",
  reload: "Tải lại trang",
  again: "Thử lại",
  loading: "Đang tải …",
  more: "Xem thêm",
  barred:
    "Trình duyệt này không cho phép trang lưu dữ liệu nên tin nhắn của bạn sẽ bị mất. Hãy cho phép dữ liệu trang web cho địa chỉ này, thoát chế độ duyệt riêng tư hoặc giải phóng dung lượng, rồi tải lại trang.",
  copy: "Sao chép",
};
