# conf: INI files by table. libinih lives here
noinst_HEADERS += src/conf/conf.h
