export default {
  show: "Hiện những gì bạn gõ",
  code: "Mã từ ứng dụng xác thực",
  codeHint:
    "Hoặc một mã khôi phục của bạn. Nếu không còn cả hai, quản trị viên của máy chủ này có thể giúp bạn đăng nhập lại.",
  missing: "Hãy điền vào đây.",
  tooShort: { other: "Ít nhất {count} ký tự." },
  notAnAddress: "Đây không phải là địa chỉ email.",
  notAUsername: "3 đến 50 chữ cái không dấu, chữ số, dấu chấm, gạch nối hoặc gạch dưới.",
  passwordHint: "Ít nhất 8 ký tự. Vài từ ghép lại thì dễ nhớ mà khó đoán.",
  passwordFair: "Tạm đủ. Dài hơn sẽ khó đoán hơn.",
  passwordGood: "Tốt.",
  passwordStrong: "Rất tốt.",
  wrongPassword: "Mật khẩu không đúng.",
};
