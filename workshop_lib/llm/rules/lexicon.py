"""The words that the offline rules know: function words, words that mean the same, names of things.

This is all the knowledge the rules have of the world, and it serves to recognise what a person wrote,
never to answer. No tool is known by name: a tool's own name, description and schema say what it is for.
"""

import re


def words_in(text: str) -> frozenset[str]:
    """The words of a list that is written as one text."""
    return frozenset(text.split())


# Words that say nothing about what is asked.
FUNCTION_WORDS = words_in(
    """
    a about after again all also am an and any anyone are as ask asked at be been being both but
    by can cant could couldnt current currently did didnt do does doesnt doing done dont each
    either else ever every few for from get gets getting give gives given go goes going gonna
    got had has have having he hello help her here hey hi him his how hows i id if ill im in
    into is isnt it its ive just kindly know let lets like likely look looking lot make many may
    maybe me might more most much must my need needed needs no not now of off often ok okay on
    one ones only or other our out over own per perhaps please pls possible quick quickly quite
    rather really right s say see shall she should show so some still such sure tell than thank
    thanks that thats the their them then there theres these they thing things think this those
    though through to today tonight too try u under up upon us use used using very via want
    wanted wants was way we well were what whats when where wheres whether which while who whom
    whose will wish with within without wonder wondering would yes yet you your yours find out
    check compared comparison compare versus vs between moment work works working
    """
)

# Words of tool descriptions that say nothing about what the tool is for.
DESCRIPTION_NOISE = FUNCTION_WORDS | words_in(
    """
    argument arguments based call called calls data describe description detail details e eg etc
    example exact fetch float format function g give given ie info information input int integer
    json list lookup name number object optional output parameter parameters provide provided
    query read required result results retrieve return returned returns run set simple single
    specified str string take takes text tool tools true type user users valid value values
    written always answer answers known unknown error small local latest new real available
    following public internal company companys team teams
    """
)

# Groups of words that mean the same to the rules. The first word names the group.
_CONCEPTS = """
weather forecast temperature temperatures temp degree degrees climate rain rains raining rainy
  rained snow snowing snowy sunny sun sunshine wind windy cloudy clouds fog foggy storm humid
  humidity hot cold warm cool hotter colder warmer cooler warmest coldest hottest chilly
  freezing freeze frosty umbrella jacket coat raincoat celsius fahrenheit outside dry wet
  drizzle
price prices priced pricing cost costs costing worth trade trades trading quote quotes quoted
  quotation valuation expensive cheap cheaper pricier
stock stocks share shares ticker tickers equity equities
roi return-on-investment invest invests invested investing investment investments compound
  compounded grow grows growth yield earnings gain gains profit profits principal interest
  savings
ip ip-address
address addresses
jira ticket tickets issue issues bug bugs backlog sprint
project projects
metric metrics statistics stats figures numbers count counts
open opened unresolved pending
close closed resolved
ship shipping shipment shipments shipped parcel package packages deliver delivery delivered
  deliveries arrive arrives arrived arriving arrival tracking track courier dispatch dispatched
order orders ordered purchase purchases
status state progress stand
convert converts converted conversion exchange exchanged change
currency currencies money forex fx
translate translates translated translation translations translating translator say
language languages
calculate calculates calculated calculation calculations calculator calc compute computes
  computed arithmetic math maths mathematics evaluate sum
add adds added adding addition plus
subtract subtracts subtraction minus difference
multiply multiplies multiplication times product
divide divides division quotient
power exponent exponentiation
send sends sending sent email emails mail mails message messages notify
time clock hour o'clock
date day calendar
search find lookup google browse
news headline headlines
inventory stock-level warehouse
customer client clients customers
employee employees colleague staff worker
payment payments pay paid
approve approval approves approved
refund refunds refunded reimburse reimbursement
book books booking reserve reserves reservation reservations
flight flights fly flying plane
hotel hotels room rooms accommodation
distance far miles kilometers kilometres km
population inhabitants residents
remind reminder reminders remember
note notes memo
random dice roll coin
joke jokes funny
capital capitals
length long height tall
weight heavy weigh weighs
document documents file files
sentiment mood tone
summarize summarise summary summaries
definition define defines meaning
user account accounts
service services server servers uptime health healthy
holiday holidays vacation leave
balance balances
invoice invoices bill bills billing
salary salaries wage wages payroll
tax taxes vat
tip tips gratuity
score scores
player team teams match game
horoscope zodiac
recipe recipes cook cooking
movie movies film films
song songs music
traffic congestion
meeting meetings appointment appointments schedule schedules event events
password passwords
mortgage loan loans
bmi
"""
CONCEPTS: dict[str, str] = {}
for _line in _CONCEPTS.replace("\n  ", " ").strip().splitlines():
    _words = _line.split()
    for _word in _words:
        CONCEPTS.setdefault(_word, "=" + _words[0])

# Asking for these is asking for words of one's own, which rules do not have.
CREATIVE = re.compile(
    r"\b(poem|haiku|limerick|story|stories|essay|song|lyrics|joke|riddle|blog post|novel|"
    r"screenplay|rap|recipe|"
    r"slogan|python code|source code|program|script|pretend|role-?play|imagine)\b"
    r"|\b(write|compose|draft|draw|paint|design)\b",
    re.IGNORECASE,
)
OPINION = re.compile(
    r"^\W*(why|explain|define)\b|\bwhat do(es)? .{1,60} mean\b|\bhow do(es)? .{1,60} work\b|"
    r"\bshould (i|we)\b(?!.*\b(take|bring|wear)\b)"
    r"|\bdo you (think|believe|like|prefer)\b|\b(predict|recommend|advice|opinion)\b|"
    r"\bgo(ing)? (up|down)\b"
    r"|\bgood (investment|idea|buy)\b|\bworth (buying|visiting|seeing)\b|\bhistory of\b|\bin "
    r"(the )?history\b",
    re.IGNORECASE,
)

# Telling a tool to change something is no question about it.
CHANGE = re.compile(
    r"^\W*(?:please |can you |could you |now |then )*"
    r"(delete|remove|cancel|close|update|change|rename|assign|reopen|buy|sell|pay|refund|"
    r"cancel|approve|reject|edit|drop)\b",
    re.IGNORECASE,
)

_SMALL = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven",
    "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
)  # fmt: skip
NUMBER_WORDS = {word: value for value, word in enumerate(_SMALL)}
TENS = {
    word: 10 * value
    for value, word in enumerate(
        ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"),
        start=2,
    )
}
SCALES = {"hundred": 100, "thousand": 1000, "million": 10**6, "billion": 10**9}

ORDINALS = {
    "first": 0, "1st": 0, "second": 1, "2nd": 1, "third": 2, "3rd": 2, "fourth": 3, "4th": 3,
    "fifth": 4, "5th": 4, "sixth": 5, "6th": 5,
}  # fmt: skip

_CITIES = """
    Seattle, San Francisco, Portland, New York, New York City, Los Angeles, Chicago, Boston,
    Houston, Phoenix, Philadelphia, San Antonio, San Diego, Dallas, San Jose, Austin,
    Jacksonville, Columbus, Charlotte, Indianapolis, Denver, Washington, Washington DC,
    Nashville, Oklahoma City, El Paso, Las Vegas, Detroit, Memphis, Baltimore, Milwaukee,
    Albuquerque, Tucson, Sacramento, Kansas City, Atlanta, Miami, Tampa, Orlando, Minneapolis,
    Cleveland, New Orleans, Honolulu, Anchorage, Pittsburgh, Cincinnati, St. Louis, Salt Lake
    City, Boise, Spokane, Tacoma, Oakland, London, Paris, Berlin, Munich, Hamburg, Frankfurt,
    Cologne, Vienna, Zurich, Geneva, Rome, Milan, Naples, Venice, Madrid, Barcelona, Lisbon,
    Porto, Amsterdam, Rotterdam, Brussels, Dublin, Edinburgh, Glasgow, Manchester, Liverpool,
    Birmingham, Oslo, Stockholm, Copenhagen, Helsinki, Reykjavik, Warsaw, Krakow, Prague,
    Budapest, Bucharest, Sofia, Athens, Istanbul, Ankara, Moscow, Kyiv, Kiev, Cairo, Lagos,
    Nairobi, Cape Town, Johannesburg, Casablanca, Dubai, Abu Dhabi, Riyadh, Tel Aviv, Jerusalem,
    Mumbai, Delhi, New Delhi, Bangalore, Chennai, Kolkata, Karachi, Dhaka, Bangkok, Hanoi,
    Jakarta, Manila, Singapore, Kuala Lumpur, Hong Kong, Shanghai, Beijing, Shenzhen, Taipei,
    Seoul, Tokyo, Osaka, Kyoto, Sydney, Melbourne, Brisbane, Perth, Auckland, Wellington,
    Toronto, Montreal, Vancouver, Ottawa, Calgary, Mexico City, Havana, Bogota, Lima, Santiago,
    Buenos Aires, Rio de Janeiro, Sao Paulo, Brasilia, Montevideo, Caracas, Quito
"""
CITY_BY_LOWER = {name.lower(): name for name in " ".join(_CITIES.split()).split(", ")}
NICKNAMES = {"nyc": "New York", "sf": "San Francisco"}
# What may follow a city after a comma and belongs to it.
REGIONS = words_in(
    """
    al ak az ar ca co ct de fl ga hi id il in ia ks ky la me md ma mi mn ms mo mt ne nv nh nj nm
    ny nc nd oh ok or pa ri sc sd tn tx ut vt va wa wv wi wy dc alabama alaska arizona
    california colorado florida georgia illinois maine maryland massachusetts michigan minnesota
    nevada ohio oregon pennsylvania texas utah virginia washington wisconsin usa us uk england
    scotland ireland france germany italy spain portugal austria switzerland netherlands belgium
    norway sweden denmark finland poland greece turkey russia ukraine egypt india china japan
    canada mexico brazil argentina australia
    """
)

COMPANIES = {
    "apple": "AAPL", "tesla": "TSLA", "microsoft": "MSFT", "google": "GOOGL", "alphabet": "GOOGL",
    "amazon": "AMZN", "nvidia": "NVDA", "meta": "META", "facebook": "META", "netflix": "NFLX",
    "intel": "INTC", "amd": "AMD", "ibm": "IBM", "oracle": "ORCL", "disney": "DIS", "boeing": "BA",
    "salesforce": "CRM", "adobe": "ADBE", "cisco": "CSCO", "paypal": "PYPL", "uber": "UBER",
    "starbucks": "SBUX", "walmart": "WMT", "nike": "NKE", "ford": "F", "visa": "V", "mastercard": "MA",
    "pfizer": "PFE", "jpmorgan": "JPM", "coca-cola": "KO", "mcdonald's": "MCD", "spotify": "SPOT",
}  # fmt: skip
# Capitals that are no ticker.
NOT_TICKERS = words_in(
    """
    A I AI AM AN AND API ARE AS AT BE BY CAN CEO CFO CTO DC DO ETA ETF EU EUR FAQ FOR FROM FX
    GBP GET GIVE HOW HR ID IF IN IP IS IT ITS JIRA JPY JSON LA LLM MCP ME MY NO NOT NOW NYC OF
    OK ON OR PDF PLEASE PM PRICE ROI SDK SF SHOW SO STOCK TELL THAT THE THIS TO TV UK UP URL US
    USA USD VAT VS WE WHAT WHO WHY WITH YES YOU CHF CAD AUD SEK NOK DKK INR CNY UTC GMT PIN SKU
    ORD AND/OR HI HEY
    """
)

CURRENCIES = {
    "$": "USD", "usd": "USD", "dollar": "USD", "dollars": "USD", "bucks": "USD", "€": "EUR", "eur": "EUR",
    "euro": "EUR", "euros": "EUR", "£": "GBP", "gbp": "GBP", "pound": "GBP", "pounds": "GBP",
    "sterling": "GBP", "¥": "JPY", "jpy": "JPY", "yen": "JPY", "chf": "CHF", "franc": "CHF",
    "francs": "CHF", "cad": "CAD", "aud": "AUD", "sek": "SEK", "krona": "SEK", "nok": "NOK", "dkk": "DKK",
    "inr": "INR", "rupee": "INR", "rupees": "INR", "cny": "CNY", "yuan": "CNY", "mxn": "MXN",
    "peso": "MXN", "pesos": "MXN", "brl": "BRL", "pln": "PLN", "czk": "CZK", "huf": "HUF", "nzd": "NZD",
    "sgd": "SGD", "hkd": "HKD", "krw": "KRW", "won": "KRW", "try": "TRY", "zar": "ZAR", "rand": "ZAR",
}  # fmt: skip
AMBIGUOUS_CURRENCY_WORDS = frozenset({"try", "won", "pound", "rand"})

LANGUAGES = {
    "english": "en", "french": "fr", "german": "de", "spanish": "es", "italian": "it",
    "portuguese": "pt", "dutch": "nl", "swedish": "sv", "norwegian": "no", "danish": "da",
    "finnish": "fi", "polish": "pl", "czech": "cs", "russian": "ru", "ukrainian": "uk", "greek": "el",
    "turkish": "tr", "arabic": "ar", "hebrew": "he", "hindi": "hi", "chinese": "zh", "mandarin": "zh",
    "japanese": "ja", "korean": "ko", "vietnamese": "vi", "thai": "th", "latin": "la", "welsh": "cy",
    "irish": "ga", "hungarian": "hu", "romanian": "ro", "swahili": "sw", "esperanto": "eo",
}  # fmt: skip

MONTHS = (
    "january", "february", "march", "april", "may", "june", "july", "august", "september",
    "october", "november", "december",
)  # fmt: skip
WEEKDAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
TIME_WORDS = words_in(
    """
    today tomorrow yesterday tonight morning afternoon evening night noon midnight week weekend
    weekends month year years months weeks days hours minutes second seconds hour minute day
    summer winter spring autumn fall past future then later soon
    """
) | set(MONTHS) | set(WEEKDAYS)  # fmt: skip
# Words after "in", "for" or "at" that are no place.
NOT_PLACES = (
    TIME_WORDS
    | FUNCTION_WORDS
    | words_in(
        """
    general total detail details fact short brief celsius fahrenheit kelvin degrees percent cash
    stock stocks shares question questions words french english spanish german numbers least
    once first last next moment advance addition case order project jira city town place country
    area region home work office school lunch dinner breakfast fun free sale best worst world
    universe sun moon love trouble life conversation chat example instance principal rate
    interest investment price weather forecast temperature currency euros dollars usd eur report
    email result answer
    """
    )
    | set(CURRENCIES)
    | set(LANGUAGES)
)
