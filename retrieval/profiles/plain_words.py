"""The words that a written summary may use besides those of its facts, in both languages."""

from collections.abc import Mapping

PLAIN = frozenset(
    """a about also an and are around as at be been besides both by category categories choice
    choices customer customers for from goods had has have he her his how in is it item items
    its kind kinds like of on or person product products range she shop shopper shoppers shops
    so some such that the their them these they thing things this those time times to various
    was well were what which who whose with while during s 该 位 这 此 顾客 用户 客户
    消费者 购物者 他 她 他们 其 的 了 和 与 及 以及 并 也 还 在 是 有 为 等 于 对 中 上 类 种
    商品 产品 物品 东西 类目 品类 品牌 例如 比如 包括 其中 同时 另外 此外 会 过 着 地 得 一些
    多种""".split()  # noqa: SIM905
)
"""Words that claim nothing. None denies, compares, counts or exaggerates."""
WORDS: Mapping[str, frozenset[str]] = {
    about: frozenset(words.split())
    for about, words in {
        "bought": """bought buy buys buying purchase purchased purchases got picked recent recently
            lately latest last 买 买了 购买 购买了 买过 购买过 购入 最近 近期 刚""",
        "repeats": """bought buy buys buying purchase purchases purchased again repeat repeats
            repeatedly often regular regularly frequent frequently keeps restocks reorders 买 购买
            常 经常 常常 反复 重复 复购 定期 回购""",
        "wanted": """put puts aside cart basket saved saves favourites favorites wishlist considers
            considering wants want interested interest 加购 收藏 加入 购物车 想买 想要 感兴趣
            考虑 放进""",
        "viewed": """looked looks looking viewed views viewing browsed browses browsing explored
            interested interest lately recently recent 浏览 浏览了 浏览过 看 看了 看过 查看
            感兴趣 最近 近期""",
        "returned": """returned returns return sent back 退货 退回 退了 退""",
        "categories": """likes liked prefers prefer preferred preference preferences favours favors
            favourite favorite favourites favorites interest interested 喜欢 偏好 偏爱 喜爱
            常选""",
        "brands": """likes liked prefers prefer preferred preference preferences favours favors
            favourite favorite favourites favorites brand brands 喜欢 偏好 偏爱 喜爱 常选""",
        "price": """prefers prefer chooses choose price prices priced level 价位 价格 偏好 喜欢
            选 选择""",
        "cheaper": """cheap cheaper inexpensive affordable thrifty economical saves low lower price
            prices conscious 便宜 实惠 低价 价格 价位 节俭 省钱 选择 选""",
        "dearer": """expensive pricier high higher price prices premium 贵 较贵 高价 价格
            价位 选择 选""",
        "promotions": """discount discounts discounted deals deal offers offer sale sales promotion
            promotions promotional bargains often 促销 折扣 打折 优惠 活动 购买 买""",
        "searches": """searched searches search searching looked looking seeks recently recent
            lately 搜索 搜索了 搜索过 搜 找 查找 寻找 最近 近期""",
        "searches_in": """searched searches search searching 搜索 用""",
    }.items()
}
"""By the kind of a fact, what may be said of it besides its own words."""
