# amp: boxes, argument types, questions and answers
noinst_HEADERS += src/amp/amp.h
