"""Values that people name in queries, by kind: what synthetic sentences are filled with."""

from __future__ import annotations

_TEXT = {
    "city_state": """Berkeley, CA|San Francisco, CA|Los Angeles, CA|San Jose, CA|Oakland, CA|Sacramento, CA
        |Fresno, CA|San Diego, CA|Santa Rosa, CA|Palo Alto, CA|Fremont, CA|Napa, CA|New York, NY|Buffalo, NY
        |Albany, NY|Chicago, IL|Houston, TX|Dallas, TX|Austin, TX|San Antonio, TX|Phoenix, AZ|Tucson, AZ|Seattle, WA
        |Spokane, WA|Portland, OR|Denver, CO|Boulder, CO|Boston, MA|Cambridge, MA|Miami, FL|Orlando, FL|Tampa, FL
        |Atlanta, GA|Savannah, GA|Philadelphia, PA|Pittsburgh, PA|Detroit, MI|Ann Arbor, MI|Minneapolis, MN
        |Las Vegas, NV|Reno, NV|Nashville, TN|Memphis, TN|Charlotte, NC|Raleigh, NC|Cleveland, OH|Columbus, OH
        |Baltimore, MD|Milwaukee, WI|Madison, WI|New Orleans, LA|Salt Lake City, UT|Kansas City, MO|St. Louis, MO
        |Indianapolis, IN|Omaha, NE|Honolulu, HI""",
    "city": """Paris|London|Berlin|Madrid|Rome|Vienna|Prague|Lisbon|Dublin|Oslo|Stockholm|Helsinki|Copenhagen|Warsaw
        |Athens|Istanbul|Cairo|Nairobi|Lagos|Cape Town|Dubai|Mumbai|Delhi|Bangalore|Bangkok|Singapore|Hanoi|Jakarta
        |Manila|Tokyo|Osaka|Kyoto|Seoul|Beijing|Shanghai|Hong Kong|Sydney|Melbourne|Auckland|Toronto|Vancouver
        |Montreal|Mexico City|Lima|Bogota|Santiago|Buenos Aires|Sao Paulo|Rio de Janeiro|New York|Chicago|Boston
        |Seattle|Miami|Los Angeles|San Francisco|Houston|Denver|Austin|Barcelona|Munich|Zurich|Geneva|Brussels
        |Amsterdam|Budapest""",
    "state": """California|Texas|Florida|New York|Ohio|Nevada|Oregon|Washington|Colorado|Arizona|Georgia|Michigan
        |Virginia|Illinois|Pennsylvania|Massachusetts|Minnesota|Alabama|Utah|Montana|Kansas|Iowa|Maine|Alaska|Hawaii""",
    "country": """France|Germany|Spain|Italy|Portugal|Norway|Sweden|Finland|Poland|Greece|Turkey|Egypt|Kenya|Nigeria
        |India|Thailand|Vietnam|Indonesia|Japan|South Korea|China|Australia|New Zealand|Canada|Mexico|Peru|Colombia
        |Brazil|Argentina|Chile|Switzerland|Austria|Belgium|Netherlands|Ireland|Denmark|Iceland|Morocco|Bangladesh""",
    "region": """Asia|Europe|Africa|South America|North America|Scandinavia|the Middle East|the Amazon|the Alps
        |Bavaria|Tuscany|the Rocky Mountains|Yellowstone National Park|Yosemite|the Great Barrier Reef|the Sahara
        |Siberia""",
    "landmark": """Central Park|Times Square|the Eiffel Tower|Union Station|Golden Gate Park|Pier 39
        |the Empire State Building|Fisherman's Wharf|Union Square|Heathrow Airport|the Louvre|Buckingham Palace
        |Grand Central Station|Harvard Square""",
    "address": """1280 Main Street|540 El Camino Real|221B Baker Street|77 Massachusetts Avenue|4 Privet Drive
        |350 Fifth Avenue|1600 Amphitheatre Parkway|12 Rue de Rivoli|98 Sunset Boulevard|2150 Shattuck Avenue
        |605 Market Street|19 Oak Lane""",
    "airport": "LAX|JFK|SFO|ORD|ATL|SEA|DFW|BOS|LHR|CDG|FRA|AMS|DXB|HND|SIN|BOM|DEL|ICN|SYD|YYZ|MIA|DEN",
    "airline": """Delta|United Airlines|American Airlines|Southwest|JetBlue|Lufthansa|Emirates|Air France
        |British Airways|Alaska Airlines|Qantas|KLM|Ryanair|Singapore Airlines""",
    "person": """John Smith|Mary Johnson|Priya Patel|Wei Chen|Carlos Garcia|Fatima Khan|Emma Brown|Olga Ivanova
        |Kenji Tanaka|Sarah Lee|David Miller|Anna Schmidt|Luca Rossi|Maria Lopez|James Wilson|Amina Yusuf
        |Peter Novak|Laura Martin|Daniel Kim|Sofia Costa|Michael Davis|Elena Petrova|Tom Baker|Grace Adams
        |Ahmed Hassan|Julia Weber|Mark Evans|Linda Clark|Robert Hall|Nina Larsen|Samuel Okafor|Chloe Dubois
        |Ravi Kumar|Hannah Scott|Oscar Nilsson""",
    "first_name": """Alex|Maria|John|Priya|Tom|Sarah|Diego|Mei|Ahmed|Emma|Lucas|Nora|Omar|Jane|Ivan|Kate|Leo|Zoe|Ben
        |Ravi""",
    "scientist": """Albert Einstein|Marie Curie|Isaac Newton|Charles Darwin|Nikola Tesla|Galileo Galilei
        |Ada Lovelace|Niels Bohr|Alan Turing|Rosalind Franklin|Michael Faraday|James Watt|Gregor Mendel
        |Johannes Kepler""",
    "leader": """Abraham Lincoln|George Washington|Napoleon Bonaparte|Winston Churchill|Queen Victoria|Julius Caesar
        |Nelson Mandela|Mahatma Gandhi|Cleopatra|Theodore Roosevelt|Genghis Khan|Charlemagne|Catherine the Great""",
    "director": """Steven Spielberg|Christopher Nolan|Quentin Tarantino|Martin Scorsese|Greta Gerwig|Ridley Scott
        |Wes Anderson|Sofia Coppola|Tim Burton|James Cameron|Spike Lee|Denis Villeneuve|Jordan Peele|Ang Lee
        |Ron Howard|Bong Joon-ho""",
    "actor": """Tom Hanks|Meryl Streep|Leonardo DiCaprio|Emma Stone|Denzel Washington|Natalie Portman|Brad Pitt
        |Viola Davis|Ryan Gosling|Cate Blanchett|Keanu Reeves|Zendaya|Morgan Freeman|Scarlett Johansson|Johnny Depp
        |Amy Adams""",
    "musician": """Taylor Swift|The Beatles|Beethoven|Mozart|Adele|Drake|Coldplay|Beyonce|Ed Sheeran|Bob Dylan
        |Metallica|Queen|Miles Davis|Rihanna|Bruno Mars|Radiohead|Nirvana|Johnny Cash|Madonna|Pink Floyd
        |Billie Eilish|Daft Punk""",
    "artist": """Vincent van Gogh|Pablo Picasso|Claude Monet|Michelangelo|Frida Kahlo|Rembrandt|Auguste Rodin
        |Salvador Dali|Leonardo da Vinci|Andy Warhol|Georgia O'Keeffe|Henri Matisse|Gustav Klimt|Raphael""",
    "author": """Jane Austen|George Orwell|Ernest Hemingway|Toni Morrison|Leo Tolstoy|Agatha Christie|Mark Twain
        |J.K. Rowling|Stephen King|Virginia Woolf|Gabriel Garcia Marquez|Haruki Murakami|Charles Dickens""",
    "player": """LeBron James|Lionel Messi|Serena Williams|Cristiano Ronaldo|Roger Federer|Stephen Curry|Tom Brady
        |Kevin Durant|Rafael Nadal|Michael Jordan|Virat Kohli|Novak Djokovic|Kylian Mbappe|Simone Biles|Usain Bolt
        |Tiger Woods""",
    "team": """Manchester United|Real Madrid|Los Angeles Lakers|Golden State Warriors|Chicago Bulls|New York Yankees
        |Liverpool|Barcelona|Boston Celtics|Dallas Cowboys|Bayern Munich|Juventus|Arsenal|Miami Heat
        |Green Bay Packers|Chelsea""",
    "league": "NBA|NFL|MLB|NHL|Premier League|La Liga|Bundesliga|Serie A|Champions League|MLS|Ligue 1|Europa League",
    "sport": "soccer|basketball|tennis|baseball|football|hockey|cricket|golf|volleyball|rugby|swimming|boxing|chess",
    "company": """Apple|Microsoft|Google|Amazon|Tesla|Netflix|IBM|Intel|Samsung|Toyota|Siemens|Sony|Nike|Walmart
        |Nestle|Pfizer|Boeing|Adobe|Oracle|Spotify|Ford|General Electric|Coca-Cola|Goldman Sachs|Acme Corp|Nvidia
        |Starbucks|Uber""",
    "ticker": "AAPL|MSFT|GOOGL|AMZN|TSLA|NFLX|IBM|INTC|NVDA|META|ORCL|DIS|KO|PFE|BA|WMT|NKE|JPM|AMD|SBUX",
    "exchange": "NASDAQ|NYSE|London Stock Exchange|Tokyo Stock Exchange|TSX|Euronext",
    "product": """iPhone 12|laptop|running shoes|coffee maker|headphones|Galaxy S21|desk lamp|yoga mat|office chair
        |blender|PlayStation 5|electric guitar|water bottle|backpack|smart watch|air fryer|mountain bike|USB cable
        |tent|MacBook Pro""",
    "food": """margherita pizza|pancakes|chicken curry|apple pie|lasagna|sushi|beef tacos|caesar salad|pad thai
        |tomato soup|chocolate cake|fried rice|banana bread|burger|chicken wings|ramen|spaghetti|garlic bread
        |omelette|falafel""",
    "ingredient": """chicken|tomatoes|garlic|basil|eggs|flour|butter|rice|onions|mushrooms|spinach|cheese|potatoes
        |beef|tofu|lentils|olive oil|salmon|carrots|black beans|bananas|milk""",
    "cuisine": "Italian|Indian|Chinese|Mexican|Thai|Japanese|French|Greek|Korean|Vietnamese|Spanish|Turkish|American",
    "diet": "vegan|vegetarian|gluten-free|keto|dairy-free|halal|low-carb|paleo|kosher",
    "restaurant": """McDonald's|The French Laundry|Chez Panisse|Olive Garden|Subway|Burger King|Pizza Hut
        |Shake Shack|Nobu|Domino's Pizza|The Cheesecake Factory|Taco Bell|Blue Bottle Cafe|El Farolito""",
    "hotel": """Hilton Garden Inn|Marriott Marquis|Grand Hyatt|Ritz-Carlton|Holiday Inn|Four Seasons|Best Western
        |Hotel Zetta|Sheraton Grand|The Plaza|Hotel Paradise|Motel 6""",
    "movie": """Inception|Titanic|The Godfather|Avatar|Parasite|The Matrix|Frozen|Jaws|Gladiator|Dune|Casablanca
        |Interstellar|Toy Story|Pulp Fiction|La La Land|The Lion King|Rocky|Black Panther|Oppenheimer|Barbie""",
    "song": """Bohemian Rhapsody|Shape of You|Hey Jude|Imagine|Let It Be|Thriller|Hotel California
        |Rolling in the Deep|Yesterday|Smells Like Teen Spirit|Baby Shark|Shallow|Bad Guy|Wonderwall|Dancing Queen
        |Clocks|Halo|Blinding Lights""",
    "album": """Abbey Road|Thriller|Back in Black|Rumours|Speak Now|1989|Lemonade|Nevermind|Starboy|25|Folklore
        |Kind of Blue""",
    "book": """Pride and Prejudice|1984|The Great Gatsby|War and Peace|Moby Dick|The Hobbit|Beloved|Ulysses|Hamlet
        |Emma|Crime and Punishment|The Catcher in the Rye|Brave New World|To Kill a Mockingbird""",
    "game": """Minecraft|Fortnite|The Legend of Zelda|Call of Duty|Chess|Tetris|Overwatch|Elden Ring|Halo
        |Super Mario Odyssey|Animal Crossing|Among Us|Cyberpunk 2077|Monopoly|Counter-Strike""",
    "platform": "PC|PlayStation|Xbox|Nintendo Switch|PS5|Steam|iOS|Android",
    "event": """World War II|the French Revolution|the Battle of Waterloo|the Civil War|the Moon landing
        |the Great Depression|the Cold War|the Renaissance|the American Revolution|the fall of the Berlin Wall
        |the Battle of Gettysburg""",
    "event_type": "Music|Theater|Sports|concert|comedy show|festival|exhibition|workshop|conference|play",
    "movie_genre": "Comedy|Drama|Action|Horror|Thriller|Romance|Sci-fi|Fantasy|Mystery|Animation|Documentary|Adventure",
    "music_genre": "Rock|Pop|Jazz|Classical|Country|Hip Hop|Blues|Reggae|Electropop|Folk|Metal|R&B",
    "animal": """deer|wolves|elephants|tigers|pandas|dolphins|eagles|bears|penguins|lions|foxes|turtles|bees|salmon
        |cats|dogs""",
    "species": "Homo sapiens|Mus musculus|Drosophila|E. coli|Zebrafish|Panthera leo|Canis lupus|Arabidopsis thaliana",
    "plant": "roses|tomatoes|cactus|sunflowers|fern|oak|bamboo|lavender|tulips|wheat|corn|orchids",
    "gene": "BRCA1|TP53|EGFR|CFTR|APOE|MYC|KRAS|rs6034464|HBB|PTEN|rs429358",
    "protein": "hemoglobin|insulin|collagen|actin|myosin|keratin|P53|albumin",
    "cell": "human|plant|animal|bacterial|muscle|nerve|red blood|yeast",
    "chemical": """water|sodium chloride|carbon dioxide|methane|ethanol|ammonia|oxygen|benzene|glucose|sulfuric acid
        |hydrogen""",
    "formula": "H2O|CO2|NaCl|C6H12O6|CH4|NH3|H2SO4|O2|C2H5OH|CaCO3",
    "element": "gold|silver|copper|iron|carbon|helium|oxygen|nitrogen|aluminum|zinc|lead|silicon",
    "material": "marble|bronze|wood|steel|glass|concrete|clay|plastic|brick|copper|aluminum",
    "disease": "diabetes|asthma|malaria|influenza|COVID-19|hypertension|breast cancer|pneumonia|anemia|migraine",
    "drug": "ibuprofen|aspirin|metformin|amoxicillin|paracetamol|lisinopril|penicillin",
    "color": "red|blue|green|black|white|yellow|silver|purple|orange|grey|pink|brown",
    "brand": "Nike|Sony|Samsung|Toyota|Yamaha|Fender|Canon|Adidas|Levi's|Dell|Bosch|Sherwin-Williams|Honda|BMW",
    "car": "Toyota Corolla|Honda Civic|Tesla Model 3|Ford Mustang|BMW X5|Audi A4|Jeep Wrangler|Nissan Leaf",
    "instrument": "guitar|piano|violin|drums|flute|cello|saxophone|trumpet|harp|clarinet",
    "language": """English|Spanish|French|German|Italian|Portuguese|Japanese|Chinese|Korean|Hindi|Arabic|Russian
        |Dutch|Swedish|Turkish|Tamil|Telugu|Malayalam""",
    "religion": "Buddhism|Christianity|Islam|Hinduism|Judaism|Sikhism|Taoism|Shinto|Jainism",
    "planet": "Earth|Mars|Jupiter|Saturn|Venus|Mercury|Neptune|Uranus|the Moon|the Sun",
    "art": "Mona Lisa|The Starry Night|The Thinker|David|Guernica|The Scream|Venus de Milo|The Kiss|Water Lilies",
    "museum": """the Louvre|the Metropolitan Museum of Art|the British Museum|MoMA|the Uffizi Gallery|the Prado
        |Tate Modern""",
    "school": """Stanford University|MIT|Harvard University|UC Berkeley|Oxford|Yale|University of Michigan
        |Lincoln High School""",
    "job": "software engineer|nurse|teacher|data scientist|plumber|lawyer|accountant|product manager|chef|electrician",
    "industry": "technology|healthcare|finance|retail|energy|automotive|agriculture|real estate|education",
    "topic": """climate change|artificial intelligence|renewable energy|machine learning|space exploration
        |the stock market|quantum computing|mental health|electric vehicles|remote work|ancient Rome|global warming
        |data privacy""",
    "crime": "theft|fraud|burglary|assault|robbery|murder|arson|embezzlement|vandalism",
    "law": "patent|copyright|civil|criminal|contract|employment|divorce|commercial|bankruptcy|property damage",
    "case": """Roe v. Wade|Brown v. Board of Education|Apple vs Samsung|Smith v. Jones|Google v. Oracle
        |Miranda v. Arizona""",
    "month": "January|February|March|April|May|June|July|August|September|October|November|December",
    "weekday": "Monday|Tuesday|Wednesday|Thursday|Friday|Saturday|Sunday",
    "season": "spring|summer|fall|winter|autumn",
    "currency": "USD|EUR|GBP|JPY|INR|CAD|AUD|CHF|CNY|MXN|BRL|KRW",
    "timezone": "New York|London|Tokyo|UTC|GMT|EST|PST|Asia/Tokyo|Europe/Paris|America/New_York|Sydney|Berlin",
    "unit": """meters|kilometers|miles|feet|inches|kilograms|pounds|grams|liters|gallons|celsius|fahrenheit|hours
        |minutes|seconds|ounces|centimeters|yards|cups|tablespoons""",
    "unit_system": "metric|imperial",
    "word": "blue|alpha|winter|budget|report|sales|backup|demo|orders|falcon|atlas|delta|orbit|phoenix|mercury|staging",
    "note": """buy milk|call the dentist|finish the report|pick up the kids|pay the rent|water the plants
        |walk the dog|book flights|renew my passport|go to the gym|prepare the slides|clean the kitchen
        |meeting with the design team""",
    "message": """I'll be ten minutes late|The meeting is moved to Friday|Happy birthday|Please call me back
        |See you at the station|Thank you for your help|The invoice is attached|Don't forget the tickets
        |I love this product|The service was terrible|The food was great but the staff was slow|Dinner is ready""",
    "subject": """Meeting tomorrow|Project update|Invoice|Vacation request|Weekly report|Welcome|Lunch on Friday
        |Budget review""",
    "email": "john.doe@example.com|sales@acme.com|maria88@gmail.com|info@mysite.org|kim.lee@yahoo.com|support@shop.io",
    "url": """https://www.example.com|https://api.github.com/users|http://localhost:8080|https://news.site.org/rss
        |https://shop.example.com/items/42|https://data.gov/api""",
    "host": "192.168.1.10|10.0.0.5|db.example.com|localhost|prod-server-01|mail.corp.net|172.16.4.2",
    "path": """/home/user/data.csv|C:/reports/2023.xlsx|data/train.csv|/var/log/app.log|report.pdf|images/cat.png
        |~/notes.txt""",
    "command": "dir|ls -la|docker ps|git status|ping example.com|npm install|whoami|df -h",
    "expression": "x**2|3x^2 + 2x - 1|2x^3|sin(x)|x**3 - 4x|e^x|5x + 3|x^2 + 1|ln(x)",
    "table": "users|orders|employees|products|customers|students|invoices|sales",
    "field": "age|name|salary|city|price|email|job|grade",
    "note_key": "C|D|G|A minor|F|B flat|E|C sharp|E major",
    "size": "small|medium|large|extra large",
    "room": "kitchen|living room|bedroom|bathroom|garage|office|hallway|master bedroom",
    "vehicle": "car|truck|bus|motorcycle|SUV|van|bicycle|sedan|train",
    "shop": "Walmart|Safeway|Whole Foods|Target|IKEA|Costco|Trader Joe's|Best Buy",
    "model": "gpt-4|resnet50|bert-base-uncased|llama-2-7b|linear regression|random forest|LSTM",
    "dna": "ATCGTACG|AGCTTAGC|GATTACA|TTAGGC|CCGTAA",
}
POOLS: dict[str, tuple[str, ...]] = {
    kind: tuple(part.strip() for part in text.replace("\n", " ").split("|")) for kind, text in _TEXT.items()
}
"""Texts by kind."""
PLACES = frozenset(("city", "state", "country", "region", "landmark", "address", "airport", "room", "shop", "museum"))

DISTRACTORS = (
    "I'm planning a trip with 3 friends.",
    "It's for my homework.",
    "My sister asked me about it yesterday.",
    "I have about 10 minutes.",
    "I'm new to this.",
    "We talked about it at dinner last night.",
    "I only slept 5 hours.",
    "It is raining here.",
    "My boss wants it in an hour.",
    "I read an article about it.",
    "I hope you are doing well.",
    "There are 2 of us working on it.",
    "This is my third attempt.",
    "I'm writing a report.",
    "I got a new phone last week.",
    "Nothing else matters to me.",
)
GREETINGS = ("Hi,", "Hello,", "Hey,", "Hi there!", "Hello!", "Ok,", "Hey there,", "Good morning,")
CLOSINGS = ("Thanks!", "Thank you.", "Please.", "Thanks a lot.", "Can you do that for me?", "It's quite urgent.")
