# ruff: noqa: E501  Markup is read more easily on a line of its own.
"""HTML of emails that tries to run something, to load something, or to lead somewhere.

Each speaks to ``{url}``, where anything that arrives is noted.
"""

HOSTILE = {
    # Elements that connect, whatever a policy says
    "preconnect": '<link rel="preconnect" href="{url}">',
    "dns-prefetch": '<link rel="dns-prefetch" href="{url}">',
    "prefetch": '<link rel="prefetch" href="{url}"><link rel="prerender" href="{url}">',
    "preload": '<link rel="preload" as="image" href="{url}">'
    '<link rel="preload" as="image" imagesrcset="{url} 1x"><link rel="modulepreload" href="{url}">',
    "link-in-svg": '<svg><link xmlns="http://www.w3.org/1999/xhtml" rel="preconnect" href="{url}"/>'
    "<foreignObject><link rel=preconnect href='{url}'></foreignObject></svg>",
    "link-in-noscript": '<noscript><link rel="preconnect" href="{url}"><img src="{url}"></noscript>',
    "link-in-attribute": '<noscript><p title="</noscript><link rel=preconnect href={url}>">',
    "link-in-title": '<svg><title><style><img title="</style><link rel=preconnect href={url}>">',
    "icon": '<link rel="icon" href="{url}"><link rel="apple-touch-icon" href="{url}">',
    "manifest": '<link rel="manifest" href="{url}"><link rel="search" href="{url}">',
    "stylesheet": '<link rel="stylesheet" href="{url}"><LINK/REL=stylesheet/HREF={url}>',
    "dictionary": '<link rel="compression-dictionary" href="{url}">'
    '<link rel="expect" href="#x" blocking="render"><link rel="payment" href="{url}">',
    "meta-refresh": '<meta http-equiv="refresh" content="0;url={url}">',
    "meta-policy": '<meta http-equiv="Content-Security-Policy" content="report-uri {url}; '
    "default-src 'none'\"><meta http-equiv='Accept-CH' content='DPR'>",
    "meta-dns": '<meta http-equiv="x-dns-prefetch-control" content="on"><a href="{url}">a</a>',
    "base": '<base href="{url}/" target="_top"><a href="x">a</a><img src="x.png">',
    "manifest-of-html": '<html manifest="{url}"><body background="{url}">',
    # Frames
    "frameset": '<frameset><frame src="{url}"></frameset>',
    "frameset-after-body": '<html><frameset rows="*" onload="{run}"><frame src="{url}"></frameset>',
    "iframe": '<iframe src="{url}"></iframe>',
    "iframe-srcdoc": "<iframe srcdoc=\"<link rel=preconnect href='{url}'><img src='{url}'>\">",
    "iframe-script": '<iframe src="javascript:{run}"></iframe>',
    "iframe-data": '<iframe src="data:text/html,<link rel=preconnect href={url}>"></iframe>',
    "iframe-allowed": '<iframe sandbox="allow-scripts allow-top-navigation" src="{url}"></iframe>',
    "portal": '<portal src="{url}"></portal><fencedframe src="{url}"></fencedframe>'
    '<controlledframe src="{url}"></controlledframe><webview src="{url}"></webview>',
    "object": '<object data="{url}"><param name="src" value="{url}"></object>',
    "object-of-html": '<object type="text/html" data="data:text/html,<img src={url}>"></object>',
    "embed": '<embed src="{url}"><applet code="x" codebase="{url}"></applet>',
    "embed-data": '<embed src="data:image/svg+xml,<svg xmlns=\'http://www.w3.org/2000/svg\'/>">',
    # Images and media
    "img": '<img src="{url}">',
    "img-lowsrc": '<img lowsrc="{url}" dynsrc="{url}" longdesc="{url}" usemap="{url}">',
    "img-srcset": '<img srcset="{url} 1x, {url}2 2x" sizes="100vw">',
    "img-lazy": '<img loading="lazy" src="{url}"><img loading="eager" src="{url}">',
    "img-spaces": '<img src=" \t\n{url}"><IMG SRC={url}><img/src="{url}">',
    "img-tab": '<img src="h&#9;ttp:{url}">',
    "img-entities": '<img src="&#x2f;lure/entities"><img src="data:,/../../lure/entities">',
    "img-scripted": '<img src="x" onerror="{run}"><img src="javascript:{run}">',
    "img-attribution": '<img attributionsrc="{url}" src="{url}">',
    "img-svg": '<img src="data:image/svg+xml,<svg xmlns=\'http://www.w3.org/2000/svg\'>'
    '<image href=\'{url}\'/></svg>">',
    "image": '<image src="{url}">',
    "picture": '<picture><source srcset="{url}"><img src="{url}"></picture>',
    "video": '<video src="{url}" poster="{url}" autoplay muted><track src="{url}" default></video>',
    "audio": '<audio src="{url}" autoplay preload="auto"><source src="{url}"></audio>',
    "input-image": '<input type="image" src="{url}" autofocus onfocus="{run}">',
    "bgsound": '<bgsound src="{url}"><xml src="{url}"></xml><layer src="{url}"></layer>',
    "body-background": '<body background="{url}">x',
    "table-background": '<table background="{url}"><tr background="{url}">'
    '<td background="{url}">x</td></tr></table>',
    "model": '<model src="{url}"><source src="{url}"></model>',
    # Style
    "style-import": '<style>@import url("{url}"); @import "{url}";</style>',
    "style-font": "<style>@font-face {{ font-family: f; src: url('{url}') }} "
    "body {{ font-family: f }}</style><p>x</p>",
    "style-url": "<style>body, p {{ background: url({url}); cursor: url({url}), auto; "
    "list-style: url({url}) }} p::after {{ content: url({url}) }}</style><p>x</p>",
    "style-image-set": "<style>p {{ background: image-set('{url}' 1x); "
    "background: -webkit-image-set(url({url}) 1x) }}</style><p>x</p>",
    "style-namespace": '<style>@namespace "{url}"; @layer a; @import "{url}" layer(a);</style>',
    "style-in-svg": "<svg><style>*{{background:url({url})}}</style><text>x</text></svg><p>x</p>",
    "style-in-math": "<math><mtext><style>*{{background:url({url})}}</style></mtext></math><p>x</p>",
    "style-attribute": '<p style="background:url({url})">x</p>'
    "<p style=\"background-image:url('{url}')\">x</p><p style='background:url(\"{url}\")'>x</p>",
    "style-attribute-escaped": r'<p style="background:\75rl({url})">x</p>'
    r'<p style="background:u\72 l({url})">x</p><p style="b\61ckground:url({url})">x</p>',
    "style-attribute-entity": '<p style="background&colon;url&lpar;{url}&rpar;">x</p>',
    "style-attribute-comment": '<p style="background:u/**/rl({url});background:/**/url(/**/{url})">x',
    "style-attribute-case": '<p style="BACKGROUND:URL({url})">x</p>',
    "style-attribute-lines": '<p style="background:url(\n{url}\n)">x</p>'
    '<p style="background: url\n({url})">x</p><p style="background:url(&#10;{url}">x</p>',
    "style-attribute-image-set": "<p style=\"background:image-set('{url}' 1x, url({url}) 2x)\">x</p>"
    "<p style=\"background-image:-webkit-image-set(url('{url}') 1x)\">x</p>",
    "style-attribute-others": '<p style="list-style-image:url({url});display:list-item">x</p>'
    '<p style="border-image:url({url}) 1;border:1px solid">x</p>'
    '<p style="cursor:url({url}),auto">x</p><p style="mask:url({url}#m);filter:url({url}#f)">x</p>'
    '<p style="content:url({url})">x</p><p style="clip-path:url({url}#c)">x</p>'
    '<p style="shape-outside:url({url});float:left">x</p><p style="offset-path:url({url}#p)">x</p>'
    '<p style="-webkit-box-reflect:below 0 url({url});-webkit-mask-image:url({url})">x</p>'
    '<p style="behavior:url({url});-moz-binding:url({url})">x</p>',
    "style-attribute-functions": "<p style=\"background:src('{url}')\">x</p>"
    "<p style=\"background:cross-fade(url('{url}'),url('{url}'))\">x</p>"
    "<p style=\"background:image('{url}')\">x</p>"
    "<p style=\"--a:url('{url}');background:var(--a)\">x</p>"
    "<p title=\"{url}\" style=\"background:url(attr(title));background:attr(title url)\">x</p>",
    "style-attribute-strings": "<p style=\"font-family:'\\';background:url({url});'\">x</p>"
    "<p style=\"font-family:';background:url({url})\">x</p>"
    "<p style=\"font-family:'a;b';background:url({url})\">x</p>"
    '<p style="color:red/*;*/;background:url({url})">x</p>',
    "style-attribute-rule": '<p style="}}@import url({url});p{{background:url({url})">x</p>',
    "style-attribute-script": '<p style="width:expression({run});background:url(javascript:{run})">',
    "style-attribute-animation": '<p style="animation:x 1s" onanimationstart="{run}">x</p>'
    "<style>@keyframes x {{ from {{ background: url({url}) }} }}</style>",
    "style-attribute-broken": '<p style="background:url({url}>x</p><p style=background:url({url})>x',
    # SVG and MathML
    "svg-link": '<svg width="99" height="99"><a href="{url}"><rect width="99" height="99"/></a></svg>',
    "svg-xlink": '<svg width="99" height="99"><a xlink:href="{url}"><rect width="99" height="99"/>'
    "</a></svg>",
    "svg-set": '<svg width="99" height="99"><a><set attributeName="href" to="{url}"/>'
    '<rect width="99" height="99"/></a></svg>',
    "svg-animate": '<svg width="99" height="99"><a><animate attributeName="href" values="{url}"/>'
    '<rect width="99" height="99"/></a></svg>',
    "svg-animate-image": '<svg><image><animate attributeName="href" values="{url}" dur="1s"/></image>'
    '<image><set attributeName="xlink:href" to="{url}"/></image></svg>',
    "svg-image": '<svg><image href="{url}"/><image xlink:href="{url}"/></svg>',
    "svg-feimage": '<svg><filter id="f"><feImage href="{url}"/></filter>'
    '<rect width="9" height="9" filter="url(#f)"/></svg>',
    "svg-use": '<svg><use href="{url}#x"/><use xlink:href="{url}#x"/></svg>',
    "svg-fill": '<svg><rect width="9" height="9" fill="url({url}#x)" style="mask:url({url}#m)"/></svg>',
    "svg-foreign": '<svg><foreignObject><iframe src="{url}"></iframe><img src="{url}">'
    "</foreignObject></svg>",
    "svg-script": '<svg onload="{run}"><script href="{url}"></script><script>{run}</script></svg>',
    "svg-handler": '<svg><animate onbegin="{run}" attributeName="x"/><set onbegin="{run}"/></svg>',
    "svg-cursor": '<svg><cursor xlink:href="{url}"/><font-face-uri xlink:href="{url}"/></svg>',
    "svg-xml-stylesheet": '<?xml-stylesheet href="{url}"?><svg><?xml-stylesheet href="{url}"?></svg>',
    "math-link": '<math href="{url}"><mtext href="{url}">link</mtext></math>'
    '<math><maction actiontype="statusline#{url}" xlink:href="{url}">x</maction></math>',
    "math-style": "<math><mi style=\"background:url('{url}')\">x</mi></math>",
    "math-annotation": '<math><annotation-xml encoding="text/html"><img src="{url}">'
    "</annotation-xml></math>",
    "math-mutation": "<math><mtext><table><mglyph><style><!--</style>"
    "<img title=\"--&gt;&lt;img src={url} onerror={run}&gt;\"></style></table></mtext></math>",
    "form-mutation": "<form><math><mtext></form><form><mglyph><style></math>"
    "<img src='{url}' onerror='{run}'></style></mglyph></form></mtext></math></form>",
    # Links and forms
    "link": '<a href="{url}" ping="{url}" attributionsrc="{url}">link</a>',
    "link-top": '<a href="{url}" target="_top">link</a>',
    "link-new": '<a href="{url}" target="_blank" rel="opener">link</a>',
    "link-download": '<a href="{url}" download>link</a>',
    "link-script": '<a href="javascript:{run}">link</a><a href="java&Tab;script:{run}">link</a>',
    "link-data": '<a href="data:text/html,<script>{run}</script>">link</a>',
    "link-other": '<a href="//{url}">link</a><a href="\\\\{url}">link</a><a href="mailto:x@y">a</a>',
    "area": '<img usemap="#m" width="99" height="99" src="data:image/gif;base64,'
    'R0lGODlhAQABAAAAACH5BAEKAAEALAAAAAABAAEAAAICTAEAOw=="><map name="m">'
    '<area shape="rect" coords="0,0,99,99" href="{url}" ping="{url}"></map>',
    "image-map": '<a href="{url}"><img ismap width="99" height="99" src="data:image/gif;base64,'
    'R0lGODlhAQABAAAAACH5BAEKAAEALAAAAAABAAEAAAICTAEAOw=="></a>',
    "form": '<form action="{url}" method="post"><button>Win</button><input type="submit"></form>',
    "form-get": '<form action="{url}"><button formaction="{url}" formtarget="_top">Win</button>'
    "</form>",
    "form-outside": '<form id="f" action="{url}"></form><button form="f">Win</button>'
    '<input form="f" type="image" src="{url}" alt="Win">',
    "isindex": '<isindex action="{url}" prompt="Win"><keygen><dialog open>Win</dialog>',
    "cite": '<blockquote cite="{url}">x</blockquote><q cite="{url}">x</q><ins cite="{url}">x</ins>',
    "invoker": '<button commandfor="d" command="show-modal" interestfor="d">Win</button>'
    '<dialog id="d">Win</dialog><button popovertarget="p">Win</button><p popover id="p">Win</p>',
    # Scripts
    "script": '<script>{run}</script><script src="{url}"></script>',
    "script-rules": '<script type="speculationrules">{{"prerender": [{{"urls": ["{url}"]}}], '
    '"prefetch": [{{"urls": ["{url}"]}}]}}</script>',
    "script-importmap": '<script type="importmap">{{"imports": {{"a": "{url}"}}}}</script>'
    '<script type="module">import "a"</script><script type="module" src="{url}"></script>',
    "handlers": '<p onclick="{run}" onmouseover="{run}" onfocus="{run}" tabindex="0" autofocus>x</p>'
    '<details open ontoggle="{run}"><summary>x</summary></details><marquee onstart="{run}">x'
    "</marquee>",
    "body-handlers": '<body onload="{run}" onpageshow="{run}" onhashchange="{run}">x',
    "template": '<template shadowrootmode="open"><link rel="preconnect" href="{url}">'
    '<style>:host{{background:url({url})}}</style><img src="{url}"></template>',
    "shadow-root": '<div><template shadowrootmode="open"><img src="{url}"><iframe src="{url}">'
    '</iframe></template></div><div><template shadowroot="open"><img src="{url}"></template></div>',
    "custom-element": '<x-mail is="x" onclick="{run}"><slot onslotchange="{run}"></slot></x-mail>',
    "xslt": '<?xml-stylesheet type="text/xsl" href="{url}"?><xsl:include href="{url}"/>',
    # Markup that is read in two ways
    "comment": '<!--><img src="{url}">--><!--!><img src="{url}">--!><img src="{url}">-->',
    "comment-dash": '<!-- --!><img src="{url}"> --><!---><img src="{url}">-->',
    "comment-conditional": '<!--[if gte IE 4]><img src="{url}"><![endif]--><![if IE]><img src="{url}">'
    "<![endif]>",
    "cdata": '<![CDATA[><img src="{url}">]]><svg><![CDATA[><img src="{url}">]]></svg>',
    "plaintext": '<plaintext><img src="{url}">',
    "textarea": '<textarea></textarea><img src="{url}"></textarea><xmp></xmp><img src="{url}"></xmp>',
    "noembed": '<noembed></noembed><img src="{url}"></noembed><noframes></noframes>'
    '<img src="{url}"></noframes>',
    "title": '<title></title><img src="{url}"></title><title><!--</title><img src="{url}">-->',
    "select": '<select><option><img src="{url}"></option><style></select><img src="{url}"></style>'
    "</select>",
    "quotes": "<p title=\"'><img src={url}>\" x='\"><img src={url}>' y=`><img src={url}>` \"><img "
    "src='{url}'>",
    "unfinished": '<img src="{url}" ',
    "unfinished-tag": "<img src={url} onerror={run}",
    "null": '<im\0g src="{url}"><img s\0rc="{url}"><\0img src="{url}"><img\0 src="{url}">',
    "doubled": '<<img src="{url}"><img <img src="{url}"><img//src="{url}"/><a<b><img src="{url}">',
    "case": '<ImG sRc="{url}" OnErRoR="{run}"><scr<script>ipt>{run}</scr</script>ipt>',
    "attributes-twice": '<img src="data:," src="{url}"><a href="#" href="{url}">x</a>',
    "attribute-names": '<img =src="{url}" src ="{url}"><img x"src="{url}"><img \'src=\'{url}>',
    "table-foster": '<table><img src="{url}"><tr><link rel="preconnect" href="{url}"></tr></table>',
    "encoding": '<meta charset="utf-7">+ADw-img src={url}+AD4-<?xml version="1.0"?>',
    "overlay": '<div style="position:fixed;inset:0;z-index:9;background:#fff">'
    '<a href="{url}" style="position:fixed;top:0;left:0;width:100%;height:100%">x</a></div>',
}  # fmt: skip
RUN = "top.document.title=`pwned`;parent.pwned=1;alert(1);fetch(`{url}`);new Image().src=`{url}`"


def hostile_html(kind: str, url: str) -> str:
    """Return an email's HTML of one kind, which speaks to ``url``."""
    return HOSTILE[kind].format(url=url, run=RUN.format(url=url))
