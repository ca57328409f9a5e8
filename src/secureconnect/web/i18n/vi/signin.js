export default {
  signIn: "Đăng nhập",
  signUp: "Tạo tài khoản",
  name: "Tên người dùng hoặc email",
  username: "Tên người dùng",
  email: "Email",
  password: "Mật khẩu",
  code: "Mã từ ứng dụng xác thực",
  invite: "Mã mời",
  noAccount: "Bạn mới đến?",
  haveAccount: "Đã có tài khoản?",
};
