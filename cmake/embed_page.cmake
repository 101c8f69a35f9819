# Makes a C file of the server's page: its bytes, an ETag, and the hashes of its script and its style
# as a content security policy wants them.
#   cmake -DPAGE=page.html -DOUT=page_data.c -P embed_page.cmake
function(mf_base64 hex result)
  set(digits "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/")
  set(text "")
  string(APPEND hex "00") # 32 bytes and one are eleven times three
  foreach(at RANGE 0 60 6)
    string(SUBSTRING ${hex} ${at} 6 three)
    foreach(shift 18 12 6 0)
      math(EXPR digit "(0x${three} >> ${shift}) & 63")
      string(SUBSTRING ${digits} ${digit} 1 digit)
      string(APPEND text ${digit})
    endforeach()
  endforeach()
  string(SUBSTRING ${text} 0 43 text)
  set(${result} "${text}=" PARENT_SCOPE)
endfunction()

# The hash of what stands between <NAME> and </NAME>, which are there once.
function(mf_hash_of name result)
  string(FIND "${page}" "<${name}>" first)
  string(FIND "${page}" "</${name}>" end)
  string(FIND "${page}" "</${name}>" last REVERSE)
  if(first LESS 0 OR NOT end EQUAL last OR end LESS first)
    message(FATAL_ERROR "${PAGE}: one <${name}> is wanted")
  endif()
  string(LENGTH "<${name}>" skip)
  math(EXPR first "${first} + ${skip}")
  math(EXPR length "${end} - ${first}")
  string(SUBSTRING "${page}" ${first} ${length} inside)
  string(SHA256 hash "${inside}")
  mf_base64(${hash} hash)
  set(${result} ${hash} PARENT_SCOPE)
endfunction()

file(READ ${PAGE} page)
mf_hash_of(script script)
mf_hash_of(style style)
file(SHA256 ${PAGE} etag)
string(SUBSTRING ${etag} 0 32 etag)
file(READ ${PAGE} hex HEX)
string(REGEX REPLACE "(................................)" "\\1\n" hex "${hex}")
string(REGEX REPLACE "([0-9a-f][0-9a-f])" "0x\\1," hex "${hex}")
file(WRITE ${OUT} "/* Made of page.html by embed_page.cmake. */
#include \"page_data.h\"

const unsigned char srv_page_bytes[] = {
${hex}};
const size_t srv_page_len = sizeof srv_page_bytes;
const char srv_page_etag[] = \"\\\"${etag}\\\"\";
const char srv_page_script_hash[] = \"sha256-${script}\";
const char srv_page_style_hash[] = \"sha256-${style}\";
")
