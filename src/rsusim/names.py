"""
Pools of plausible names and places in several scripts. Every combination is invented.

Each culture is (share of people in thousandths, first names F, first names M, last names).
"""

from typing import Final

CULTURES: Final[tuple[tuple[int, str, str, str], ...]] = (
    (
        620,
        "Mary Emily Hannah Grace Olivia Sarah Megan Ashley Rachel Abigail Lauren Kate Ruth Molly "
        "Alice Peggy Ellen Joan Tessa Paige Willa Nora Ada Marta Ivy Hazel",
        "James John Robert Michael David William Thomas Daniel Matthew Andrew Kevin Brian Scott "
        "Eric Peter Kyle Owen Caleb Nathan Walter Henry Jonah Miles Grant Ross Jon",
        "Smith Johnson Williams Brown Jones Miller Davis Wilson Anderson Taylor Moore Martin White "
        "Harris Clark Lewis Walker Hall Young King Wright Hill Green Baker Carter Quill O'Brady "
        "O'Neil McAllister Van_Dyke Smith-Jones St._Clair Hollis Pruitt Sandoval Ash Finch Weller",
    ),
    (
        130,
        "María José Lucía Sofía Camila Inés Ximena Begoña Itzel Noemí",
        "José Luis Iñaki Andrés Raúl Jesús Ángel Tomás Martín Joaquín",
        "García Núñez Peña Muñoz Ibáñez Gutiérrez López Hernández Zúñiga de_la_Cruz Ordóñez",
    ),
    (
        60,
        "Zoë Chloé Amélie Françoise Noémie Maëlle",
        "François Noël Étienne Loïc Jérôme Gaël",
        "Lévesque Côté Gagné Bélanger L'Écuyer Lévesque-Nuñez D'Amboise Château",
    ),
    (
        40,
        "Jürgenne Käthe Anneliese Solveig Åse Maja",
        "Jürgen Björn Søren Günther Håkon Łukasz",
        "Müller Groß Størdal Ångström Kowalczyk Żółkiewski Ødegård Nováček Şahin",
    ),
    (
        40,
        "Nguyệt Thùy Linh Hương",
        "Đức Tuấn Minh Quốc",
        "Nguyễn Trần Phạm Đặng Huỳnh",
    ),
    (30, "秀英 静怡 美玲 佳", "伟 建国 志强 明", "王 李 张 陳 歐陽"),
    (20, "さくら 陽子 結衣", "太郎 健 大輔", "佐藤 鈴木 髙橋 渡邉"),
    (20, "지은 수빈 민서", "민준 서준 지훈", "김 이 박 최"),
    (15, "Олена Марія Ірина", "Олександр Дмитро Їван", "Шевченко Коваль Зеленко Щербак"),
    (10, "فاطمة مريم ليلى", "محمد أحمد يوسف", "الحسن خليل العمري"),
    (8, "नेहा प्रिया", "राहुल अर्जुन", "शर्मा कुमार पटेल"),
    (7, "Ελένη Μαρία", "Γιώργος Νίκος", "Παπαδόπουλος Νικολάου"),
)

# city, state, zip prefix, country; the share of a place is how often it stands here.
PLACES: Final[tuple[tuple[str, str, str, str], ...]] = (
    ("Lakeport", "IL", "600", "US"),
    ("Prairie Falls", "SD", "570", "US"),
    ("St. Marlow", "MN", "551", "US"),
    ("Harbor Point", "ME", "041", "US"),
    ("Coeur d'Aster", "ID", "838", "US"),
    ("Winston Mills", "NC", "271", "US"),
    ("New Ashford", "MA", "012", "US"),
    ("Mesa Roja", "AZ", "852", "US"),
    ("Cañon Alto", "CO", "812", "US"),
    ("Bayou Vert", "LA", "705", "US"),
    ("Kailani", "HI", "967", "US"),
    ("Port Gamble", "WA", "983", "US"),
    ("Moorestown", "NJ", "080", "US"),
    ("Exampleville", "PA", "191", "US"),
    ("Truckee Bend", "NV", "895", "US"),
    ("Cedar Hollow", "TN", "372", "US"),
    ("Montréal", "QC", "H2X 1Y", "CA"),
    ("San Ejemplo", "BCN", "220", "MX"),
    ("Llanfair", "", "LL5 ", "GB"),
    ("München", "BY", "80", "DE"),
)

STREETS: Final[tuple[str, ...]] = (
    "Sample Ave",
    "Pier St",
    "N Orchard Rd",
    "Mill Pond Ln Apt #4",
    'Route 9 "Old Post Rd"',
    "Calle Ñandú",
    "County Rd 12/14",
    "Summit Blvd",
)

TEAM_NAMES: Final[tuple[str, ...]] = (
    'The "Fast" Family',
    "Sole Mates",
    "Café Striders",
    "Run/Walk Club",
    "Agony of De-Feet",
    "Blister Sisters & Co.",
    "Team Łódź",
    "駅伝クラブ",
)

RACE_WORDS: Final[tuple[tuple[str, ...], ...]] = (
    ("Harbor Lights", "Frosty Toes", "Cañon Trail", "Turkey Day", "Sunrise", "Maple Leaf", "Mesa"),
    ("Marathon & Half", "5K", "Trail Fest", "10 Miler", "Half", "Classic", "Run/Walk", "Relay"),
)

ANSWERS: Final[tuple[str, ...]] = (
    "Pat Sample",
    "Mom",
    "555-010-9911",
    "n/a",
    "José Núñez",
    "See above :-)",
)
