export default {
  signIn: "Sign in",
  signUp: "Create an account",
  name: "Username or e-mail",
  username: "Username",
  email: "E-mail",
  password: "Password",
  code: "Code from your authenticator app",
  invite: "Invitation code",
  noAccount: "New here?",
  haveAccount: "Already have an account?",
};
