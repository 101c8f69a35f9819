#!/usr/bin/env python3
"""Writes tests/data/template_renders.inc: small templates and what jinja2 makes of them.

Needs the PyPI package jinja2 (3.1.6 was used). The environment is that of Hugging Face transformers.

    python3 tools/gen_template_renders.py > tests/data/template_renders.inc
"""
import random
import re
import sys

import datetime
import json

import jinja2.sandbox

env=jinja2.sandbox.ImmutableSandboxedEnvironment(trim_blocks=True,lstrip_blocks=True,extensions=['jinja2.ext.loopcontrols'])
env.filters['tojson']=lambda x,ensure_ascii=False,indent=None,separators=None,sort_keys=False: json.dumps(
    x,ensure_ascii=ensure_ascii,indent=indent,separators=separators,sort_keys=sort_keys)
env.globals['strftime_now']=lambda f: datetime.datetime(2025,3,9,14,5,7).strftime(f)
V=dict(messages=[dict(role='user',content='hi'),dict(role='assistant',content='yo')],empty=[],add_generation_prompt=True,nothing=None,one=1,s='str')
S=r'''
text
{{ s }}
{{s}}\n
a\n\n
{{ 'a' "b" + s }}
{{ 'it\'s\t\x41\u00e9\101\q' }}
{% for m in messages %}{{ m.role + ': ' + m['content'] }};{% endfor %}
{% for m in messages %}{{ loop.index }}{{ loop.index0 }}{{ loop.first }}{{ loop.last }}{{ loop.length }}{{ loop.revindex }}{{ loop.revindex0 }} {% endfor %}
{% for m in empty %}x{% else %}none{% endfor %}
{% for m in unknown %}x{% else %}none{% endfor %}
{% for m in messages %}{% for n in messages %}{{ loop.index }}{% endfor %}{{ loop.index }}{{ m.role }}{% endfor %}{{ m }}{{ loop }}
{% if one == 1 and not nothing %}yes{% else %}no{% endif %}
{% if s == 'x' %}1{% elif s != 'str' %}2{% elif one %}3{% else %}4{% endif %}
{% if messages[0].role == 'user' %}u{% endif %}{{ messages[7] }}
{{ unknown }}{{ nothing }}{{ true }}{{ False }}{{ one + 2 }}
{{ s or 'x' }}{{ nothing or 'x' }}{{ s and 'y' }}{{ '' and 'z' }}
{{ not s }}{{ not not s }}{{ (s == 'str') == true }}
{{ true == one }}{{ nothing == unknown }}{{ unknown == other }}{{ s == one }}{{ 'a' != 'b' }}
  {% if s %}\n  in\n  {% endif %}\nout\n
  {%+ if s %}\n  in\n  {%+ endif %}\nout
a \n {%- if s -%} \n b \n {%- endif -%} \n c
a {{- s -}} b
a \n {{- s }} \n b
 {{ s }}\n b
x {# c #}\n y
{# c #}\n y
  {# c -#} \n y
x\n  {#- c +#}\n y
{% if s +%}\n a{% endif +%}\n b
\u00a0\u2003{%- if s %} x{% endif %}
{% if s %}  {% endif %}  {% if s %}  x{% endif %}
{{ '{{' }}{{ "}}" }}{{ '%}' }}
{ {} } {x} %} }}
{{ messages[0]['role'] + messages[1].content }}{{ messages[0].missing }}{{ messages[0]['nope'] }}
{{- s }}\r\n{%- if s %}\r\nx\r\n{% endif %}\ry\r\n
{{ 'a\nb' }}
{{ s -}}   \n\t z
{% for m in messages -%}\n {{ m.role }}\n{%- if not loop.last %}, {% endif %}\n{% endfor %}
{{ '\\n' }}{{ "\"" }}{{ '\0' == '\x00' }}
\x1c\x1d{{- s }}
{{ 1 + 2 * 3 - 4 // 3 % 2 }} {{ -7 // 2 }} {{ -7 % 3 }} {{ 7 % -3 }} {{ 2 ** 3 ** 2 }} {{ -2 ** 2 }} {{ 7 / 2 }} {{ 6 / 3 }} {{ 2 ** -1 }}
{{ 1.5 + 1 }} {{ 0.1 + 0.2 }} {{ 1e22 }} {{ 1e16 }} {{ 123456789012345.0 }} {{ 1e-5 }} {{ 0.0001 }} {{ -0.0 }} {{ 5.0 // 2 }} {{ -5.5 % 2 }}
{{ 1 < 2 < 3 }} {{ 1 < 3 < 2 }} {{ 'a' < 'b' }} {{ [1, 2] < [1, 3] }} {{ 1 == 1.0 }} {{ true + true }} {{ 'é' > 'z' }}
{{ 'a' in 'cat' }} {{ 1 in [1] }} {{ 'x' not in {'x': 1} }} {{ 'a' in unknown }} {{ not 'a' in ['a'] }}
{{ 'hello'[1:3] }} {{ 'hello'[::-1] }} {{ 'hello'[-3:] }} {{ [1, 2, 3, 4][::2] }} {{ (1, 2, 3)[1:] }} {{ 'h\u00e9llo'[1] }} {{ 'hello'[10:] }} {{ 'hello'[4:1:-2] }}
{{ {'a': 1, 'b': [none, true, 1.0, 'it\'s']} }} {{ (1,) }} {{ () }} {{ ['a\nb', "q'"] }} {{ {1: 2, none: 3} }} {{ range(3) }} {{ {'a': 1}.items() }}
{{ s ~ 1 ~ none ~ unknown ~ [1] }} {{ 'a' * 3 }} {{ [0] * 2 + [1] }} {{ '%s is %d (%.2f) %5s|%-5s|%05d%%' % ('x', 3, 1.239, 'r', 'l', 42) }}
{{ 'yes' if s else 'no' }}{{ 'no' if not s }}|{{ (1 if empty else 2) + 1 }}
{% set x = 1 %}{% for i in [1, 2] %}{% set x = x + i %}{{ x }}{% endfor %}{{ x }}
{% set ns = namespace(n=0) %}{% for i in range(4) %}{% set ns.n = ns.n + i %}{% endfor %}{{ ns.n }}{{ ns.none }}
{% set a, b = 1, 'two' %}{{ a }}{{ b }}{% set t %}<{{ s }}>{% endset %}{{ t }}{% set u | upper | trim %} x {% endset %}{{ u }}
{% for k, v in {'a': 1, 'b': 2}.items() %}{{ k }}={{ v }}{{ ', ' if not loop.last }}{% endfor %}
{% for i in [1, 2, 3, 4, 5] if i % 2 %}{{ loop.index }}:{{ i }}/{{ loop.length }} {% endfor %}
{% for i in [1, 2, 3, 4] %}{% if i == 2 %}{% continue %}{% endif %}{% if i == 4 %}{% break %}{% endif %}{{ i }}{% endfor %}
{% for i in [1] %}{% break %}{% else %}else{% endfor %}{% for i in [1, 2] %}{{ loop.previtem }}{{ loop.nextitem }}{{ loop.cycle('a', 'b') }}{{ loop.changed(1) }}{% endfor %}
{% for i in [[1, [2, [3]]], [4]] recursive %}{{ loop.depth }}{% if i is iterable %}({{ loop(i) }}){% else %}{{ i }}{% endif %}{% endfor %}
{% macro m(a, b='B', c=a) %}[{{ a }}{{ b }}{{ c }}]{% endmacro %}{{ m(1) }}{{ m(1, 2) }}{{ m(b=3, a=4) }}{{ m() }}
{% macro m() %}{{ varargs }}{{ kwargs }}{% endmacro %}{{ m(1, 2, x=3) }}{% macro w() %}<{{ caller('x') }}>{% endmacro %}{% call(y) w() %}{{ y }}{{ s }}{% endcall %}
{% filter upper %}a{{ s }}{% endfilter %}{% with q = 1, r = s %}{{ q }}{{ r }}{% endwith %}{{ q }}
{% raw %}{{ x }} {% if %}{% endraw %}|  {%- raw -%}  a  {%- endraw -%}  b
{{ ' x y '|trim }}|{{ '--x-'|trim('-') }}|{{ 'a b-c (d'|title }}|{{ 'aBC d'|capitalize }}|{{ 'x'|center(5) }}|{{ 'stra\u00dfe'|upper }}
{{ [3, 1, 2]|sort }}{{ ['b', 'A', 'c']|sort }}{{ ['b', 'A']|sort(case_sensitive=true, reverse=true) }}{{ {'b': 1, 'A': 2}|dictsort }}{{ {'b': 1, 'A': 2}|dictsort(by='value') }}
{{ messages|map(attribute='role')|join('+') }} {{ messages|selectattr('role', 'equalto', 'user')|list|length }} {{ messages|rejectattr('nope')|map('length')|list }} {{ [1, 0, none, 2]|select|list }} {{ ['a', 'B']|map('upper')|list }}
{{ 'yes' if messages|selectattr('nope')|list else 'empty' }}{{ 'yes' if messages|selectattr('nope') }}
{% set g = [1, 2]|map('string') %}{{ g|list }}{{ g|list }}{{ messages|groupby('role')|map(attribute='grouper')|join }}
{{ [1, 2, 3]|sum }} {{ [1, 2, 3]|min }} {{ ['b', 'C', 'a']|max }} {{ [1, 1.0, 2, 'a', 'A']|unique|list }} {{ [1, 2, 3]|first }}{{ [1, 2, 3]|last }}{{ []|first }} {{ 'abc'|reverse }} {{ [1, 2]|reverse|list }}
{{ range(5)|batch(2)|list }} {{ range(5)|batch(2, 0)|list }} {{ range(5)|slice(2)|list }} {{ range(5)|slice(2, 'x')|list }}
{{ '3.7'|int }} {{ 'x'|int(7) }} {{ '0x1f'|int(0, 16) }} {{ 2.5|round }} {{ 3.5|round }} {{ 2.675|round(2) }} {{ 1.25|round(1, 'ceil') }} {{ 17|round(-1) }} {{ -3|abs }} {{ '1.5'|float }}
{{ unknown|default('d') }} {{ ''|default('d') }}|{{ ''|default('d', true) }} {{ none|d(1) }} {{ 'a\nb\n\nc'|indent }}|{{ 'a\nb'|indent(2, true) }}|{{ 'a\n\nb'|indent('>', blank=true) }}
{{ {'a': [1, 2.0, none, true, 'é"<&>\u007f\x01']}|tojson }} {{ {'b': 1, 'a': []}|tojson(indent=2, sort_keys=true) }} {{ [1, {}]|tojson(separators=(',', ':')) }} {{ 'é😀'|tojson(ensure_ascii=true) }}
{{ 'a,b,,c'.split(',') }} {{ ' a  b '.split() }} {{ 'a b c'.split(' ', 1) }} {{ 'a b c'.rsplit(' ', 1) }} {{ 'a\nb\r\n'.splitlines() }} {{ 'abc'.partition('b') }} {{ 'xaxbx'.strip('x') }} {{ 'abcabc'.rfind('b') }}
{{ 'abc'.startswith(('x', 'ab')) }} {{ 'abc'.endswith('c') }} {{ 'aaa'.replace('a', 'b', 2) }} {{ '-'.join(['a', 'b']) }} {{ 'aXb'.swapcase() }} {{ 'a1'.isalnum() }} {{ '12'.zfill(5) }} {{ '{} {1} {x:>4}'.format(1, 2, x='q') if false }}{{ '{:>4}|{:.2f}|{!r}'.format('q', 1.239, 'r') }}
{{ {'a': 1}.get('b', 2) }} {{ {'a': 1}.get('b') }} {{ {'a': 1}.keys()|list }} {{ messages[0].items()|list }} {{ {'items': 5}['items'] }} {{ [1, 2].index(2) }} {{ [1, 1].count(1) }}
{{ 1 is number }}{{ true is number }}{{ true is integer }}{{ 1.0 is float }}{{ s is string }}{{ messages is sequence }}{{ messages[0] is mapping }}{{ unknown is defined }}{{ unknown is sequence }}{{ none is none }}{{ 3 is odd }}{{ 4 is divisibleby 2 }}{{ 'a' is in ['a'] }}{{ s is not mapping }}{{ 1 is sameas true }}{{ 'A' is upper }}{{ messages is iterable }}{{ 2 is eq 2 }}
{{ ('<'|safe) + '<&\'"' }} {{ '<'|e }} {{ ('<'|safe) ~ '<' }} {{ '<b>'|escape|upper }} {{ ['<'|safe, '<']|join }} {{ '<%s>'|safe % '&' }}
{{ strftime_now('%d %B %Y, %H:%M:%S %p %A %j %U %y %e %-d %I') }} {{ [1, 2, 3]|join(', ') }} {{ dict(a=1, **{'b': 2}) }} {{ [[1, 2], [3]]|sum(start=[]) }}
{% set j = joiner('; ') %}{{ j() }}a{{ j() }}b{% set c = cycler('x', 'y') %}{{ c.next() }}{{ c.next() }}{{ c.next() }}{{ c.current }}
{% print s, 1 %}{{ 0x1f }} {{ 1_000 }} {{ 0b11 }} {{ 1e3 }} {{ messages.0.role }} {{ 'a' 'b' ~ 'c' }} {{ -1|abs }} {{ (-1)|abs + 1 }} {{ {'a': {'b': 'c'}}.a.b }}
{{ -9223372036854775808 }} {{ -9223372036854775808 + 1 }} {{ - 9223372036854775808|string }} {{ [-9223372036854775808, 9223372036854775807]|min }}
'''
def c(s):
    out=''
    for b in s.encode():
        if b in b'"\\': out+='\\'+chr(b)
        elif b==10: out+='\\n'
        elif 32<=b<127 and b!=63: out+=chr(b)
        else: out+='\\%03o'%b
    return out
cases=[]
for line in S.strip('\n').split('\n'):
    # in literal parts of the template, \n etc. written here mean the characters; inside {{ }} they stay
    parts=re.split(r'(\{\{.*?\}\}(?!\}))',line)
    src=''.join(p if p.startswith('{{') else p.encode('latin1').decode('unicode-escape') for p in parts)
    cases.append(src)
# random white space mixtures
random.seed(7)
frag=[' ','  ','\n','\t','\n\n','a','b ',' c\n','{{ s }}','{{- s }}','{{ s -}}','{{- s -}}','{% if s %}','{%- if s %}','{% if s -%}','{%- if s -%}','{%+ if s %}','{% if s +%}','{# x #}','{#- x #}','{# x -#}','{#+ x +#}','\r\n']
for _ in range(400):
    n=random.randint(2,10); src=''; open_=0
    for _ in range(n):
        f=random.choice(frag)
        src+=f
        if 'if s' in f: open_+=1
        elif open_ and random.random()<.4:
            src+=random.choice(['{% endif %}','{%- endif %}','{% endif -%}','{%- endif -%}','{%+ endif %}','{% endif +%}']); open_-=1
    src+='{% endif %}'*open_+random.choice(['','\n','x'])
    cases.append(src)
print('/* Generated by tools/gen_template_renders.py with jinja2 3.1.6; do not edit. */')
for src in cases:
    try: t=env.from_string(src).render(**V)
    except Exception as e:
        print('SKIP',repr(src),e,file=sys.stderr); continue
    print('{"%s",\n "%s"},'%(c(src),c(t)))
