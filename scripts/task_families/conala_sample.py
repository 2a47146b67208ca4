"""A sample in the CoNaLa format, written for this project (own words and own snippets, nothing copied).

It exercises the readers of that format: `rewritten_intent` may be null, several rows may share a
`question_id`, and the mined rows carry a probability. The ids start at 900000001, which no real
question has.
"""

from __future__ import annotations

FIRST_ID = 900_000_001

_TRAIN = (
    # (intent, rewritten intent or None, snippet); a blank intent continues the question above
    ("How do I turn a list of strings into one line?", "join the strings in list `parts` with a blank", "' '.join(parts)"),
    ("", "join the strings in list `parts` with a comma and a blank", "', '.join(parts)"),
    ("sum of squares of a list", "compute the sum of the squares of the numbers in `nums`", "sum(n ** 2 for n in nums)"),
    ("get rid of empty strings in a list", "remove empty strings from list `lines`", "[line for line in lines if line]"),
    ("", "remove strings made of blanks only from list `lines`", "[line for line in lines if line.strip()]"),
    ("Reversing a string", "reverse string `word`", "word[::-1]"),
    ("how can I count the vowels in a text", "count the vowels in string `text`", "sum(text.count(v) for v in 'aeiou')"),
    ("read a whole file as text", "read the file `path` into a string", "open(path, encoding='utf-8').read()"),
    ("last three items of a list", None, "items[-3:]"),
    ("every second element of a list", "get every second element of list `items`, starting with the first", "items[::2]"),
    ("", "get every second element of list `items`, starting with the second", "items[1::2]"),
    ("sort a dict by its values", "get the items of dictionary `prices` sorted by value", "sorted(prices.items(), key=lambda pair: pair[1])"),
    ("", "get the keys of dictionary `prices` from the highest to the lowest value", "sorted(prices, key=prices.get, reverse=True)"),
    ("merge two dictionaries", "merge dictionaries `base` and `extra`, `extra` winning", "{**base, **extra}"),
    ("swap keys and values of a dict", "exchange keys and values of dictionary `table`", "{value: key for key, value in table.items()}"),
    ("largest value in a dict", "find the key of the largest value in dictionary `votes`", "max(votes, key=votes.get)"),
    ("unique items but keep the order", "remove duplicates from list `names` keeping the order", "list(dict.fromkeys(names))"),
    ("common elements of two lists", "get the sorted elements that lists `a` and `b` share", "sorted(set(a) & set(b))"),
    ("is every number positive", "check whether all numbers in `nums` are positive", "all(n > 0 for n in nums)"),
    ("does any word start with a capital", "check whether any word in `words` starts with a capital letter", "any(w[:1].isupper() for w in words)"),
    ("flatten a nested list by one level", "flatten list of lists `rows`", "[cell for row in rows for cell in row]"),
    ("transpose rows and columns", "transpose the list of rows `grid`", "[list(column) for column in zip(*grid)]"),
    ("second column of a table", "get the second column of list of lists `rows`", "[row[1] for row in rows]"),
    ("pair up two lists in a dictionary", "make a dictionary from keys `names` and values `ages`", "dict(zip(names, ages))"),
    ("index of the biggest number", "find the index of the largest number in list `nums`", "nums.index(max(nums))"),
    ("round to two digits", "round number `x` to two decimals", "round(x, 2)"),
    ("format a number with two decimals", "format number `x` with two decimals as a string", "f'{x:.2f}'"),
    ("", "format number `x` with thousands separators", "f'{x:,}'"),
    ("pad a number with zeros", "convert integer `n` to a string of five characters with leading zeros", "str(n).zfill(5)"),
    ("binary text of an integer", "write integer `n` in binary without prefix", "format(n, 'b')"),
    ("hex string to int", "convert hexadecimal string `h` to an integer", "int(h, 16)"),
    ("digits of a number as a list", "get the digits of integer `n` as a list", "[int(d) for d in str(n)]"),
    ("average of a list", "compute the mean of the numbers in `nums`", "sum(nums) / len(nums)"),
    ("product of all numbers", None, "math.prod(nums)"),
    ("median of numbers", "compute the median of `nums` with the statistics module", "statistics.median(nums)"),
    ("how to know if a number is even", "check whether `n` is even", "n % 2 == 0"),
    ("quotient and rest at once", "get quotient and remainder of `a` by `b`", "divmod(a, b)"),
    ("today as text", "get today's date as an ISO string", "str(datetime.date.today())"),
    ("add a week to a date", "add seven days to date `day`", "day + datetime.timedelta(days=7)"),
    ("parse a date like 31.12.2020", "parse string `s` in the form day.month.year", "datetime.datetime.strptime(s, '%d.%m.%Y')"),
    ("weekday name from a date", "get the name of the weekday of date `day`", "day.strftime('%A')"),
    ("days between two dates", "count the days from date `start` to date `end`", "(end - start).days"),
    ("split a string at commas and trim the parts", "split `line` at commas and strip every part", "[part.strip() for part in line.split(',')]"),
    ("split only once", "split string `line` at the first colon", "line.split(':', 1)"),
    ("text after the last slash", "get the part of `path` after the last slash", "path.rsplit('/', 1)[-1]"),
    ("all numbers inside a string", "find all integers in string `text`", "re.findall(r'-?\\d+', text)"),
    ("", "replace every run of white space in `text` by one blank", "re.sub(r'\\s+', ' ', text)"),
    ("remove punctuation", "remove everything but letters and blanks from `text`", "re.sub(r'[^A-Za-z ]', '', text)"),
    ("count words in a text", "count the words in string `text`", "len(text.split())"),
    ("", "count how often each word occurs in string `text`", "collections.Counter(text.split())"),
    ("most frequent item", "get the most frequent element of list `items`", "collections.Counter(items).most_common(1)[0][0]"),
    ("capitalize each word", "capitalize every word of string `text`", "text.title()"),
    ("is the word a palindrome", "check whether string `word` is a palindrome", "word == word[::-1]"),
    ("sort words ignoring case", "sort list `words` ignoring case", "sorted(words, key=str.lower)"),
    ("", "sort list `words` by length, longest first", "sorted(words, key=len, reverse=True)"),
    ("sort pairs by the second item", "sort list of tuples `pairs` by the second element", "sorted(pairs, key=lambda p: p[1])"),
    ("sort list of dicts", "sort list of dictionaries `rows` by the key 'age'", "sorted(rows, key=lambda r: r['age'])"),
    ("three smallest numbers", "get the three smallest numbers of `nums`", "heapq.nsmallest(3, nums)"),
    ("cut a list into chunks", "split list `items` into chunks of four", "[items[i:i + 4] for i in range(0, len(items), 4)]"),
    ("neighbouring pairs", "get all pairs of neighbours in list `items`", "list(zip(items, items[1:]))"),
    ("running total", "compute the running totals of list `nums`", "list(itertools.accumulate(nums))"),
    ("all pairs from a list", "get all combinations of two elements of `items`", "list(itertools.combinations(items, 2))"),
    ("get a value or a default from a dict", "get the value of key 'size' in dictionary `d`, 0 if missing", "d.get('size', 0)"),
    ("drop a key from a dict", "get dictionary `d` without the key 'id'", "{k: v for k, v in d.items() if k != 'id'}"),
    ("dict to json", "convert dictionary `d` to an indented JSON string", "json.dumps(d, indent=2)"),
    ("lines of a file without newline", "read the lines of file `path` without line ends", "open(path).read().splitlines()"),
    ("list files of a folder", "list the names of all files ending in '.py' in folder `root`", "[p.name for p in pathlib.Path(root).glob('*.py')]"),
    ("current folder", None, "os.getcwd()"),
)  # fmt: skip

_TEST = (
    ("last character of a string", "get the last character of string `s`", "s[-1]"),
    ("remove the first two characters", "get string `s` without its first two characters", "s[2:]"),
    ("repeat a string", "repeat string `s` three times with a dash between", "'-'.join([s] * 3)"),
    ("numbers from 10 down to 1", None, "list(range(10, 0, -1))"),
    ("even numbers below 20", "make a list of the even numbers below 20", "list(range(0, 20, 2))"),
    ("squares in a dictionary", "map every number below `n` to its square in a dictionary", "{i: i * i for i in range(n)}"),
    ("length of the longest word", "get the length of the longest word in `words`", "max(len(w) for w in words)"),
    ("", "get the longest word in `words`", "max(words, key=len)"),
    ("negative numbers in a list", "count the negative numbers in `nums`", "sum(n < 0 for n in nums)"),
    ("replace None in a list", "replace None by 0 in list `items`", "[0 if item is None else item for item in items]"),
    ("elements only in the first list", "get the elements of list `a` that are not in list `b`", "[x for x in a if x not in b]"),
    ("keys with a big value", "get the keys of dictionary `d` whose value is above 10", "[k for k, v in d.items() if v > 10]"),
    ("total of dict values", "add up the values of dictionary `d`", "sum(d.values())"),
    ("", "add up the values of key 'price' in list of dictionaries `rows`", "sum(row['price'] for row in rows)"),
    ("month from an iso date", "get the month of ISO date string `s` as an integer", "int(s[5:7])"),
    ("first day of the month", "get the first day of the month of date `day`", "day.replace(day=1)"),
    ("file extension", "get the file extension of `path`", "os.path.splitext(path)[1]"),
    ("key=value text to dict", "parse string `s` of the form 'a=1;b=2' into a dictionary", "dict(p.split('=') for p in s.split(';'))"),
    ("is the string a number", "check whether string `s` consists of digits", "s.isdigit()"),
    ("ascii codes of a string", "get the character codes of string `s`", "[ord(c) for c in s]"),
    ("shuffle a copy of a list", "get a shuffled copy of list `items`", "random.sample(items, len(items))"),
    ("clamp a number", "limit number `x` to the range from 0 to 1", "max(0, min(1, x))"),
    ("sum of digits", "compute the sum of the digits of integer `n`", "sum(map(int, str(n)))"),
    ("second largest number", "get the second largest of the different numbers in `nums`", "sorted(set(nums))[-2]"),
)  # fmt: skip

_MINED = (
    # (intent, snippets from most to least probable)
    ("How do I turn a list of strings into one line?", ("' '.join(parts)", "print(*parts)", "str(parts)")),
    ("remove duplicates from a list", ("list(set(items))", "list(dict.fromkeys(items))", "sorted(set(items))")),
    ("check if a key exists in a dict", ("key in d", "d.get(key) is not None", "key in d.keys()")),
    ("read lines from a file", ("open(path).readlines()", "list(open(path))", "[x.rstrip() for x in open(path)]")),
    ("sort a list in reverse order", ("sorted(items, reverse=True)", "items.sort(reverse=True)", "items[::-1]")),
    ("convert string to integer", ("int(s)", "float(s)", "int(s, 10)")),
    ("find the longest string in a list", ("max(words, key=len)", "sorted(words, key=len)[-1]", "len(max(words))")),
    ("get the current time", ("time.time()", "datetime.datetime.now()", "time.ctime()")),
    ("create a folder", ("os.makedirs(path, exist_ok=True)", "os.mkdir(path)", "pathlib.Path(path).mkdir()")),
    ("count items in a list", ("len(items)", "items.count(x)", "collections.Counter(items)")),
    ("random number between one and ten", ("random.randint(1, 10)", "random.randrange(1, 11)", "random.random() * 10")),
    ("add an item to a list", ("items.append(x)", "items += [x]", "items.insert(0, x)")),
    ("loop with an index", ("for i, x in enumerate(items): print(i, x)", "for i in range(len(items)): print(i)", "list(enumerate(items))")),
    ("check whether a list is empty", ("not items", "len(items) == 0", "items == []")),
    ("lower case of a string", ("s.lower()", "s.casefold()", "str.lower(s)")),
)  # fmt: skip

_PROBABILITIES = (0.87, 0.52, 0.11)


def _rows(items: tuple[tuple[str, str | None, str], ...], first_id: int) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    question_id = first_id - 1
    last = ""
    for intent, rewritten, snippet in items:
        if intent:
            question_id += 1
            last = intent
        rows.append(
            {
                "intent": last,
                "rewritten_intent": rewritten,
                "snippet": snippet,
                "question_id": question_id,
            }
        )
    return rows


TRAIN = _rows(_TRAIN, FIRST_ID)
TEST = _rows(_TEST, FIRST_ID + 1_000)
MINED: list[dict[str, object]] = [
    {
        "question_id": FIRST_ID + 2_000 + number,
        "intent": intent,
        "snippet": snippet,
        "id": f"{FIRST_ID + 2_000 + number}_{900 + number}_{rank}",
        "prob": round(_PROBABILITIES[rank] - 0.01 * (number % 7), 4),
    }
    for number, (intent, snippets) in enumerate(_MINED)
    for rank, snippet in enumerate(snippets)
]
