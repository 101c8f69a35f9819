#include "text/tokenizer_int.h"
bool mf_tokenizer_has_chat_template(const mf_tokenizer *tokenizer)
{
    return tokenizer->chat_template != NULL;
}
