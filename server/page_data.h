/* The page, as the build embeds it: see cmake/embed_page.cmake. */
#ifndef SRV_PAGE_DATA_H
#define SRV_PAGE_DATA_H

#include <stddef.h>

extern const unsigned char srv_page_bytes[]; /* [srv_page_len] */
extern const size_t srv_page_len;
extern const char srv_page_etag[];                               /* in quotes */
extern const char srv_page_script_hash[], srv_page_style_hash[]; /* "sha256-..." */

#endif
