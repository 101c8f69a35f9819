/* The values of "format" as patterns. Part of the reader of JSON schemas (schema.c). What is
 * written is narrower than the standards where readers differ: what comes out is valid for all of
 * them. */
#include <string.h>

#include "base/defs.h"
#include "grammar/schema_text.h"

/* Years 1000 to 9999, the 29th of February in leap years that no century ends. RFC 3339. */
#define DATE                                                                                       \
    "([1-9][0-9]{3}-((0[13578]|1[02])-(0[1-9]|[12][0-9]|3[01])"                                    \
    "|(0[469]|11)-(0[1-9]|[12][0-9]|30)|02-(0[1-9]|1[0-9]|2[0-8]))"                                \
    "|[1-9][0-9](0[48]|[2468][048]|[13579][26])-02-29)"
#define TIME                                                                                       \
    "([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\\.[0-9]{1,6})?"                                     \
    "(Z|[+\\-]([01][0-9]|2[0-3]):[0-5][0-9])"
#define UUID "[0-9a-fA-F]{8}-([0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}"

/* RFC 3339, appendix A. */
#define NUM        "[0-9]{1,4}"
#define DUR_SECOND NUM "S"
#define DUR_MINUTE NUM "M(" DUR_SECOND ")?"
#define DUR_HOUR   NUM "H(" DUR_MINUTE ")?"
#define DUR_TIME   "T(" DUR_HOUR "|" DUR_MINUTE "|" DUR_SECOND ")"
#define DUR_DAY    NUM "D"
#define DUR_MONTH  NUM "M(" DUR_DAY ")?"
#define DUR_YEAR   NUM "Y(" DUR_MONTH ")?"
#define DUR_DATE   "(" DUR_DAY "|" DUR_MONTH "|" DUR_YEAR ")"
#define DURATION   "P(" DUR_DATE "(" DUR_TIME ")?|" DUR_TIME "|" NUM "W)"

#define LABEL    "[A-Za-z0-9]{1,12}(-[A-Za-z0-9]{1,12})?"
#define HOSTNAME "(" LABEL "\\.){0,3}[A-Za-z]{2,10}"
#define ATOM     "[A-Za-z0-9!#$%&'*+/=?_{|}~\\-]{1,12}"
#define EMAIL    ATOM "(\\." ATOM "){0,2}@(" LABEL "\\.){1,3}[A-Za-z]{2,10}"

#define OCTET "(25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
#define IPV4  "(" OCTET "\\.){3}" OCTET
#define H16   "[0-9a-fA-F]{1,4}"
#define IPV6                                                                                       \
    "((" H16 ":){7}" H16 "|(" H16 ":){1,6}:" H16 "|(" H16 ":){1,5}(:" H16 "){2}|(" H16             \
    ":){1,4}(:" H16 "){3}|(" H16 ":){1,3}(:" H16 "){4}|(" H16 ":){1,2}(:" H16 "){5}|" H16          \
    ":(:" H16 "){6}|::(" H16 ":){0,6}" H16 "|(" H16 ":){1,6}:|::)"

#define PCHAR "([A-Za-z0-9._~!$&'()*+,;=:@\\-]|%[0-9A-F]{2})"
#define REST  "(/" PCHAR "{1,24}){0,5}/?(\\?" PCHAR "{0,40})?(#" PCHAR "{0,20})?"
#define URN   "urn:[a-z]{2,10}:[a-z0-9]{1,30}"
#define URI   "((https?|ftp|wss?)://" HOSTNAME "(:[1-9][0-9]{0,3})?" REST "|" URN ")"

const char *mfi_format_pattern(const char *format)
{
    static const struct {
        const char *name, *pattern;
    } known[] = {
        {"date", "^" DATE "$"},
        {"time", "^" TIME "$"},
        {"date-time", "^" DATE "T" TIME "$"},
        {"duration", "^" DURATION "$"},
        {"uuid", "^" UUID "$"},
        {"email", "^" EMAIL "$"},
        {"idn-email", "^" EMAIL "$"},
        {"hostname", "^" HOSTNAME "$"},
        {"idn-hostname", "^" HOSTNAME "$"},
        {"ipv4", "^" IPV4 "$"},
        {"ipv6", "^" IPV6 "$"},
        {"ipvanyaddress", "^(" IPV4 "|" IPV6 ")$"},
        {"uri", "^" URI "$"},
        {"url", "^" URI "$"},
        {"iri", "^" URI "$"},
        {"uri-reference", "^(" URI "|" REST ")$"},
        {"iri-reference", "^(" URI "|" REST ")$"},
        {"json-pointer", "^(/([^~/\\x00-\\x1f]|~[01])*)*$"},
        {"relative-json-pointer", ""},
        {"regex", ""},
        {"uri-template", ""},
    };
    for (size_t i = 0; i < MFI_ARRAY_LEN(known); i++)
        if (strcmp(format, known[i].name) == 0)
            return known[i].pattern;
    return NULL;
}
