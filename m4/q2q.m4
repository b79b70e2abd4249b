dnl Q2Q_LIB(NAME, PKG-CONFIG MODULES, DEBIAN PACKAGES)
dnl Sets NAME_CFLAGS and NAME_LIBS, or stops and names the Debian package to install.
AC_DEFUN([Q2Q_LIB], [
  AC_MSG_CHECKING([for $2])
  AS_IF([$PKG_CONFIG --exists "$2" 2>/dev/null], [
    $1_CFLAGS=`$PKG_CONFIG --cflags "$2"`
    $1_LIBS=`$PKG_CONFIG --libs "$2"`
    AC_MSG_RESULT([`$PKG_CONFIG --modversion "$2" | head -n 1`])
  ], [
    AC_MSG_RESULT([no])
    AC_MSG_ERROR([$2 is missing. On Debian: apt-get install $3])
  ])
  AC_SUBST([$1_CFLAGS])
  AC_SUBST([$1_LIBS])
])

dnl Q2Q_CC_FLAG(FLAG): adds FLAG to Q2Q_CFLAGS if the compiler takes it.
AC_DEFUN([Q2Q_CC_FLAG], [
  q2q_saved_cflags="$CFLAGS"
  CFLAGS="$CFLAGS -Werror $1"
  AC_MSG_CHECKING([whether $CC takes $1])
  AC_COMPILE_IFELSE([AC_LANG_PROGRAM([], [])],
    [AC_MSG_RESULT([yes]); Q2Q_CFLAGS="$Q2Q_CFLAGS $1"],
    [AC_MSG_RESULT([no])])
  CFLAGS="$q2q_saved_cflags"
])

AC_DEFUN([Q2Q_WARNINGS], [
  m4_foreach_w([flag], [-std=gnu11 -Wall -Wextra -Wshadow -Wconversion -Wmissing-prototypes
    -Wstrict-prototypes -Wold-style-definition -Wpointer-arith -Wwrite-strings -Wvla -Wundef
    -Wformat=2 -Wimplicit-fallthrough -Wcast-qual -Wno-missing-field-initializers
    -fno-strict-aliasing -fno-common -fvisibility=hidden],
    [Q2Q_CC_FLAG(flag)])
])

AC_DEFUN([Q2Q_HARDENING], [
  m4_foreach_w([flag], [-fstack-protector-strong -fstack-clash-protection -fcf-protection],
    [Q2Q_CC_FLAG(flag)])
  Q2Q_CFLAGS="$Q2Q_CFLAGS -U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=2"
  Q2Q_LDFLAGS="$Q2Q_LDFLAGS -Wl,-z,relro,-z,now,-z,noexecstack"
  Q2Q_PIE_LDFLAGS="-pie"
])
